package image

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// A marker is the blob that makes an image visible: the image exists as long as its marker does. It is created and never replaced, so of two
// runs of a task one publishes; and it goes only by being deleted from the storage, which the keeper alone may do there. Whoever adds images
// has the password too, with which kopia's snapshots and contents can be marked as deleted. Such marks hide no image.
type marker struct {
	Version  int       `json:"version"`
	ID       string    `json:"id"`
	TaskUID  string    `json:"task"`
	Policy   string    `json:"policy,omitempty"`
	VM       VM        `json:"vm"`
	TakenAt  time.Time `json:"takenAt"`
	StoredAt time.Time `json:"storedAt"`
	Digest   string    `json:"digest"`

	// Root is the directory that stock kopia shows.
	Root *snapshot.DirEntry `json:"root"`
	// Lock is absent where nothing is locked.
	Lock *Lock `json:"lock,omitempty"`
}

// Lock says how long an image cannot be deleted, by anybody.
type Lock struct {
	// Until is what was promised when the image was stored.
	Until time.Time `json:"until"`
	// Held is how long every blob that the image needs was locked then, at least. An image that links to this one relies on it.
	Held time.Time `json:"held"`
}

// markers reads and writes the markers of a repository. What was read once is remembered: markers do not change.
type markers struct {
	store  *storage.Storage
	seal   cipher.AEAD
	naming []byte
	mu     sync.Mutex
	known  map[blob.ID]marker
}

// markersAtOnce is how many are fetched at the same time: most of that is waiting.
const markersAtOnce = 16

func (s *session) openMarkers() (*markers, error) {
	secret, err := s.DeriveKey("hyperkeep image marker", 64)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret[:32])
	if err != nil {
		return nil, err
	}
	seal, err := cipher.NewGCM(block)
	return &markers{store: s.store, seal: seal, naming: secret[32:], known: map[blob.ID]marker{}}, err
}

// over are the same markers, with none remembered, over another way to the storage.
func (m *markers) over(store *storage.Storage) *markers {
	return &markers{store: store, seal: m.seal, naming: m.naming, known: map[blob.ID]marker{}}
}

// name of the marker of an image. It starts with what stands for the VM, so that a listing finds the images of one, and tells an outsider
// neither.
func (m *markers) name(vmID, imageID string) blob.ID {
	return m.ofVM(vmID) + m.ofImage(imageID)
}

func (m *markers) ofVM(id string) blob.ID {
	return storage.ImagePrefix + blob.ID(m.hash("vm", id)[:16]) + "-"
}

func (m *markers) ofImage(id string) blob.ID { return blob.ID(m.hash("image", id)[:32]) }

func (m *markers) hash(kind, id string) string {
	h := hmac.New(sha256.New, m.naming)
	h.Write([]byte(kind + "\x00" + id))
	return hex.EncodeToString(h.Sum(nil))
}

// create stores a marker and reads it back. blob.ErrBlobAlreadyExists when another run of the task was faster.
func (m *markers) create(ctx context.Context, of marker, lock blob.PutOptions) error {
	plain, err := json.Marshal(of)
	if err != nil {
		return err
	}
	name := m.name(of.VM.ID, of.ID)
	nonce := make([]byte, m.seal.NonceSize())
	rand.Read(nonce)
	sealed := m.seal.Seal(nonce, nonce, plain, []byte(name))
	lock.DoNotRecreate = true
	err = m.store.PutBlob(ctx, name, storage.Bytes(sealed), lock)
	if errors.Is(err, blob.ErrUnsupportedPutBlobOption) { // the probe of the repository warns of it
		lock.DoNotRecreate = false
		err = m.store.PutBlob(ctx, name, storage.Bytes(sealed), lock)
	}
	if err != nil {
		return err
	}
	found, err := m.read(ctx, name)
	if err == nil && found.Digest != of.Digest {
		return blob.ErrBlobAlreadyExists
	}
	return damaged(err, "read the marker back")
}

// read fetches a marker. ErrDamaged when it is not one that somebody with the password made under this name.
func (m *markers) read(ctx context.Context, name blob.ID) (marker, error) {
	m.mu.Lock()
	known, ok := m.known[name]
	m.mu.Unlock()
	if ok {
		return known, nil
	}
	sealed, err := m.store.Whole(ctx, name)
	if err != nil {
		return marker{}, err
	}
	var found marker
	size := m.seal.NonceSize()
	if len(sealed) < size {
		return marker{}, fmt.Errorf("marker %s is cut short: %w", name, ErrDamaged)
	}
	plain, err := m.seal.Open(nil, sealed[:size], sealed[size:], []byte(name))
	if err == nil {
		err = json.Unmarshal(plain, &found)
	}
	if err == nil && (found.Root == nil || m.name(found.VM.ID, found.ID) != name) {
		err = errors.New("it names another image")
	}
	if err != nil {
		return marker{}, damaged(err, "marker %s", name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[name] = found
	return found, nil
}

// names lists the markers of a VM, of one image, or of all.
func (m *markers) names(ctx context.Context, filter ImageFilter) ([]blob.ID, error) {
	prefix := storage.ImagePrefix
	if filter.VMID != "" {
		prefix = m.ofVM(filter.VMID)
	}
	var names []blob.ID
	err := m.store.ListBlobs(ctx, prefix, func(b blob.Metadata) error {
		if filter.ID == "" || strings.HasSuffix(string(b.BlobID), string(m.ofImage(filter.ID))) {
			names = append(names, b.BlobID)
		}
		return nil
	})
	return names, err
}

// list reads the markers that a filter selects. One that is damaged is left out, for it must not hide the others, unless it alone was asked
// for.
func (m *markers) list(ctx context.Context, filter ImageFilter) ([]marker, error) {
	names, err := m.names(ctx, filter)
	if err != nil {
		return nil, err
	}
	found := make([]marker, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(markersAtOnce)
	for i, name := range names {
		group.Go(func() error {
			var err error
			found[i], err = m.read(ctx, name)
			switch {
			case errors.Is(err, blob.ErrBlobNotFound): // deleted meanwhile
				return nil
			case errors.Is(err, ErrDamaged) && filter.ID == "":
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(f marker) bool { return f.ID == "" || !filter.selects(f) }), nil
}

// all lists every marker that can be read, and says whether those are all that there are.
func (m *markers) all(ctx context.Context) (found []marker, complete bool, err error) {
	names, err := m.names(ctx, ImageFilter{})
	if err != nil {
		return nil, false, err
	}
	found, err = m.list(ctx, ImageFilter{})
	return found, len(found) >= len(names), err
}

// delete removes the markers of an image: from then on there is no such image.
func (m *markers) delete(ctx context.Context, imageID string) error {
	names, err := m.names(ctx, ImageFilter{ID: imageID})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.store.DeleteBlob(ctx, name); err != nil {
			return err
		}
		m.mu.Lock()
		delete(m.known, name)
		m.mu.Unlock()
	}
	return nil
}
