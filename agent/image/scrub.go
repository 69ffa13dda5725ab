package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"golang.org/x/sync/errgroup"
)

// Places divide the packs of a repository by their names, which are random. So each range of places has its share of the bytes, whatever is stored
// and deleted meanwhile, and how far a round of scrubbing is takes one number to remember.
const Places = 1 << 16

const (
	// placesAtOnce bounds the memory: so many places hold a 64th of the index, some 15 MiB of ten million contents.
	placesAtOnce = Places / 64
	// maxDamagedContents bounds what is looked for in images. A share in which more is damaged ends early.
	maxDamagedContents = 16 << 10
	// scrubbers read at the same time, few enough to leave the storage to backups.
	scrubbers = 2
)

// ScrubOptions say what to read.
type ScrubOptions struct {
	// From and To are places: From is read, To is not.
	From, To int
	// Again are packs that were damaged when they were read last, to be read besides.
	Again []string
	// Bandwidth bounds what is read. Nil bounds nothing.
	Bandwidth *Bandwidth
	// Done is told now and then what was found so far. An error of it ends the scrub. May be nil.
	Done func(Scrubbed) error
}

// Scrubbed is what was read of a repository, and what of that is damaged.
type Scrubbed struct {
	// Position is the place up to which everything was read.
	Position int
	// Contents and Bytes were read, as they are stored.
	Contents, Bytes int64
	// Damaged counts the contents that are missing or fail their check, Packs are where the index says that they are.
	Damaged int
	Packs   []string
	// Images are those that need any of them, with the disks and files that suffer. It is filled at the end.
	Images []Verification
}

// Scrub reads a share of everything that is stored, pack by pack, and checks it, whatever image needs it. It says which images suffer from what is
// damaged, among them those of damage that was found before and is there still: what a backup has stored anew is sound again. Writers and maintenance
// go on meanwhile. Damage is part of the result; an error means that the storage fails, and the result how far it got.
func (r *Repository) Scrub(ctx context.Context, opts ScrubOptions) (Scrubbed, error) {
	s := &scrub{repo: r, opts: opts, damaged: map[content.ID]bool{}, found: Scrubbed{Position: opts.From}}
	if err := s.run(ctx); err != nil {
		return s.found, fmt.Errorf("scrub: %w", err)
	}
	return s.found, nil
}

type scrub struct {
	repo    *Repository
	opts    ScrubOptions
	damaged map[content.ID]bool

	mu    sync.Mutex
	found Scrubbed
}

func (s *scrub) run(ctx context.Context) error {
	if err := s.repo.refresh(ctx); err != nil {
		return err
	}
	if len(s.opts.Again) > 0 {
		if err := s.read(ctx, func(pack blob.ID) bool { return slices.Contains(s.opts.Again, string(pack)) }); err != nil {
			return err
		}
	}
	for from := s.opts.From; from < s.opts.To && len(s.damaged) < maxDamagedContents; {
		to := min(s.opts.To, from+placesAtOnce)
		err := s.read(ctx, func(pack blob.ID) bool {
			at := placeOf(pack)
			return at >= from && at < to && !slices.Contains(s.opts.Again, string(pack))
		})
		if err != nil {
			return err
		}
		from, s.found.Position = to, to
		if s.opts.Done != nil {
			if err := s.opts.Done(s.found); err != nil {
				return err
			}
		}
	}
	if len(s.damaged) == 0 {
		return nil
	}
	var err error
	s.found.Images, err = s.repo.needing(ctx, s.damaged)
	return err
}

// placeOf is the place of a pack: the first bits of the random number that its name is after a letter.
func placeOf(pack blob.ID) int {
	const from, to = 1, 5
	if len(pack) < to {
		return 0
	}
	at, err := strconv.ParseUint(string(pack[from:to]), 16, 16)
	if err != nil {
		return 0
	}
	return int(at)
}

// read checks all contents of some packs.
func (s *scrub) read(ctx context.Context, wanted func(pack blob.ID) bool) error {
	var all []want
	err := s.repo.session.ContentReader().IterateContents(ctx, content.IterateOptions{}, func(info content.Info) error {
		if wanted(info.PackBlobID) {
			all = append(all, want{info: info})
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, inPacks)
	group, inGroup := errgroup.WithContext(ctx)
	group.SetLimit(scrubbers)
	for len(all) > 0 && inGroup.Err() == nil {
		n := runOf(all)
		together := all[:n]
		all = all[n:]
		group.Go(func() error { return s.check(inGroup, together) })
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// check reads contents that lie together.
func (s *scrub) check(ctx context.Context, together []want) error {
	var fast, slow []want
	size := uint32(0)
	for _, w := range together {
		if s.repo.chunks.opens(w.info) {
			fast, size = append(fast, w), max(size, w.info.OriginalLength)
		} else {
			slow = append(slow, w)
		}
	}
	var bytes int64
	for _, w := range together {
		bytes += int64(w.info.PackedLength)
	}
	if err := s.opts.Bandwidth.Wait(ctx, bytes); err != nil {
		return err
	}
	if len(fast) > 0 {
		into := make([]byte, size) // nobody looks at what it says
		for i := range fast {
			fast[i].into = into[:fast[i].info.OriginalLength]
		}
		slow = append(slow, s.repo.chunks.read(ctx, fast)...)
	}
	for _, w := range slow {
		if err := s.checkOne(ctx, w.info); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found.Contents += int64(len(together))
	s.found.Bytes += bytes
	return nil
}

// checkOne reads a content through kopia. One that cannot be read is looked up anew: maintenance may have moved it, or dropped it as garbage.
func (s *scrub) checkOne(ctx context.Context, info content.Info) error {
	reader := s.repo.session.ContentReader()
	_, err := reader.GetContent(ctx, info.ContentID)
	if err != nil && !passing(err) {
		if err := s.repo.refresh(ctx); err != nil {
			return err
		}
		_, err = reader.GetContent(ctx, info.ContentID)
	}
	if err == nil || errors.Is(err, content.ErrContentNotFound) {
		return nil
	}
	if passing(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged[info.ContentID] = true
	s.found.Damaged = len(s.damaged)
	if pack := string(info.PackBlobID); !slices.Contains(s.found.Packs, pack) {
		s.found.Packs = append(s.found.Packs, pack)
	}
	return nil
}
