package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/maintenance"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// Repository is a handle on an open repository. It is safe for concurrent use, and several processes may have the same repository open.
type Repository struct {
	loc      Location
	password string
	opts     Options
	session  *session
	chunks   *chunks
}

// Initialize creates a repository. It fails when one is there already, and must not run twice at the same time on one location.
func Initialize(ctx context.Context, loc Location, password string, opts Options) error {
	opts = opts.withDefaults()
	if password == "" {
		return fmt.Errorf("create repository: %w", errors.New("an empty password protects nothing: set one"))
	}
	store, err := storage.Open(ctx, loc, storage.Creating, opts.storage(loc))
	if err != nil {
		return fmt.Errorf("create repository: %w", err)
	}
	err = repo.Initialize(ctx, store, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash:       "BLAKE3-256-128",
			Encryption: "AES256-GCM-HMAC-SHA256",
			MutableParameters: format.MutableParameters{
				Version:     format.FormatVersion3,
				MaxPackSize: int(packSize(loc)),
			},
		},
		ObjectFormat:                      format.ObjectFormat{Splitter: leafSplitter},
		FormatBlockKeyDerivationAlgorithm: opts.keyDerivation, // kopia's default, scrypt, but in tests
	}, password)
	if err := errors.Join(err, store.Close(ctx)); err != nil {
		return fmt.Errorf("create repository in %s: %w", loc, err)
	}
	r, err := Open(ctx, loc, password, opts)
	if err != nil {
		return err
	}
	return errors.Join(r.configure(ctx), r.Close(ctx))
}

// Open opens an existing repository. Its errors are those that a Location can have, ErrWrongPassword and ErrDamaged.
func Open(ctx context.Context, loc Location, password string, opts Options) (*Repository, error) {
	opts = opts.withDefaults()
	s, err := openWithAny(ctx, loc, password, opts, readWrite)
	if err != nil {
		return nil, err
	}
	return newRepository(ctx, loc, password, opts, s)
}

// newRepository makes a handle of a session, which it closes when it fails.
func newRepository(ctx context.Context, loc Location, password string, opts Options, s *session) (*Repository, error) {
	c, err := newChunks(s, opts.Parallelism)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open repository: %w", err), s.close(ctx))
	}
	return &Repository{loc: loc, password: password, opts: opts, session: s, chunks: c}, nil
}

// OpenOrCreate opens a repository, and creates it first when there is none. Only one caller may do so at a time.
func OpenOrCreate(ctx context.Context, loc Location, password string, opts Options) (*Repository, error) {
	r, err := Open(ctx, loc, password, opts)
	if !errors.Is(err, ErrNoRepository) {
		return r, err
	}
	if err := Initialize(ctx, loc, password, opts); err != nil {
		return nil, err
	}
	return Open(ctx, loc, password, opts)
}

// Close gives the handle back. Writers and readers of it are of no use afterwards. A second call does nothing.
func (r *Repository) Close(ctx context.Context) error { return r.session.close(ctx) }

// UniqueID identifies the repository wherever it is moved to: 64 hexadecimal digits, set when it was created.
func (r *Repository) UniqueID() string { return hex.EncodeToString(r.session.UniqueID()) }

// Kopia keeps index blobs uncompacted for two epochs, and a look-up takes time linear in their number. With its default of 24 hours a
// busy repository would slow down by the day. The refresh frequency must be at most a third of an epoch.
const (
	epochDuration  = time.Hour
	epochRefresh   = 20 * time.Minute
	quickInterval  = time.Hour
	fullInterval   = 24 * time.Hour
	maintenanceKey = kopiaUser + "@" + kopiaHost
)

// configure brings the settings that kopia only accepts after creation. It writes nothing when they are right.
func (r *Repository) configure(ctx context.Context) error {
	manager := r.session.FormatManager()
	params, err := manager.GetMutableParameters(ctx)
	if err != nil {
		return fmt.Errorf("configure repository: %w", err)
	}
	if params.EpochParameters.MinEpochDuration != epochDuration || params.EpochParameters.EpochRefreshFrequency != epochRefresh {
		params.EpochParameters.MinEpochDuration = epochDuration
		params.EpochParameters.EpochRefreshFrequency = epochRefresh
		retention, err := manager.BlobCfgBlob(ctx)
		if err != nil {
			return fmt.Errorf("configure repository: %w", err)
		}
		features, err := manager.RequiredFeatures(ctx)
		if err != nil {
			return fmt.Errorf("configure repository: %w", err)
		}
		if err := manager.SetParameters(ctx, params, retention, features); err != nil {
			return fmt.Errorf("configure repository: %w", err)
		}
	}
	return r.ownMaintenance(ctx)
}

func (r *Repository) ownMaintenance(ctx context.Context) error {
	params, err := maintenance.GetParams(ctx, r.session)
	if err != nil {
		return fmt.Errorf("configure maintenance: %w", err)
	}
	if params.Owner == maintenanceKey {
		return nil
	}
	params.Owner = maintenanceKey
	params.QuickCycle = maintenance.CycleParams{Enabled: true, Interval: quickInterval}
	params.FullCycle = maintenance.CycleParams{Enabled: true, Interval: fullInterval}
	return r.write(ctx, "configure maintenance", func(ctx context.Context, w repo.RepositoryWriter) error {
		return maintenance.SetParams(ctx, w, params)
	})
}

// write runs one short write session and flushes it. Nothing of it is visible when it fails.
func (r *Repository) write(ctx context.Context, purpose string, do func(context.Context, repo.RepositoryWriter) error) error {
	if err := repo.WriteSession(ctx, r.session, repo.WriteSessionOptions{Purpose: purpose}, do); err != nil {
		return fmt.Errorf("%s: %w", purpose, err)
	}
	return nil
}

// refresh makes visible what other processes wrote meanwhile.
func (r *Repository) refresh(ctx context.Context) error {
	return damaged(r.session.Refresh(ctx), "refresh repository")
}

// StorageFacts are what a test of a storage showed.
type StorageFacts = storage.Facts

// StorageAbility is something that a storage may lack.
type StorageAbility = storage.Ability

// TestStorage finds out whether the storage has what backups rely on. It writes, overwrites and deletes a blob of its own.
func (r *Repository) TestStorage(ctx context.Context) (StorageFacts, error) {
	if r.opts.AppendOnly {
		return StorageFacts{}, fmt.Errorf("test the storage: %w", ErrAppendOnly)
	}
	return r.session.store.Test(ctx)
}

// Stats is what a repository holds.
type Stats struct {
	UniqueID    string
	Images      int
	StoredBytes int64 // of all blobs, garbage that waits for maintenance included
	Blobs       int
	// IndexBlobs slow every look-up down in proportion. Beyond some hundred, maintenance does not keep up or does not run.
	IndexBlobs int
	// CapacityBytes and FreeBytes are zero for object stores, which do not tell.
	CapacityBytes, FreeBytes int64
}

// Stats lists every blob: its cost is that of a listing of the storage.
func (r *Repository) Stats(ctx context.Context) (Stats, error) {
	images, err := r.Images(ctx, ImageFilter{})
	if err != nil {
		return Stats{}, err
	}
	out := Stats{UniqueID: r.UniqueID(), Images: len(images)}
	err = r.session.BlobReader().ListBlobs(ctx, "", func(m blob.Metadata) error {
		out.Blobs++
		out.StoredBytes += m.Length
		return nil
	})
	if err != nil {
		return Stats{}, fmt.Errorf("list blobs: %w", err)
	}
	indexes, err := r.session.IndexBlobs(ctx, false)
	if err != nil {
		return Stats{}, fmt.Errorf("list indexes: %w", err)
	}
	out.IndexBlobs = len(indexes)
	capacity, err := r.session.BlobVolume().GetCapacity(ctx)
	if errors.Is(err, blob.ErrNotAVolume) {
		return out, nil
	}
	out.CapacityBytes, out.FreeBytes = int64(capacity.SizeB), int64(capacity.FreeB)
	return out, err
}
