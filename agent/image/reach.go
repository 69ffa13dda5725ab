package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"
)

// root is where something starts that is needed.
type root struct {
	kind   byte
	object object.ID
}

// Kinds of objects.
const (
	aFile      byte = 'f' // its lists are looked into, its data is not
	aDirectory byte = 'd'
)

// reach finds the contents that roots need. It goes down level by level, and looks into each directory and each list once per level, however many
// images share it. So the cost is that of the unique lists: an image adds those of the segments in which something changed, and its root list. Leaves
// are named and not opened.
type reach struct {
	repo     repo.DirectRepository
	dir      string
	parallel int

	data, metadata *nameSet // the contents that were found: without a prefix, and with one

	// hurt are contents that are known to be damaged; suffering are the lists and directories that have one, or name one.
	hurt map[content.ID]bool

	mu        sync.Mutex
	damage    error // the first that could not be read
	damages   int
	suffering map[object.ID]bool
}

func newReach(r repo.DirectRepository, opts Options) *reach {
	return &reach{
		repo: r, dir: opts.WorkDir, parallel: opts.Parallelism,
		data: newNameSet(opts.WorkDir), metadata: newNameSet(opts.WorkDir), suffering: map[object.ID]bool{},
	}
}

func (r *reach) close() error { return errors.Join(r.data.close(), r.metadata.close()) }

// walk follows everything that the roots need. What cannot be read is noted as damage, and the rest followed all the same.
func (r *reach) walk(ctx context.Context, roots []root) error {
	level := newNameSet(r.dir)
	for _, at := range roots {
		if err := r.found(level, at); err != nil {
			return errors.Join(err, level.close())
		}
	}
	for more := true; more; {
		below := newNameSet(r.dir)
		var err error
		more, err = r.level(ctx, level, below)
		if err := errors.Join(err, level.close()); err != nil {
			return errors.Join(err, below.close())
		}
		level = below
	}
	return level.close()
}

// level looks into everything of one level and collects what lies below it. It says whether there was anything.
func (r *reach) level(ctx context.Context, level, below *nameSet) (any bool, err error) {
	for first := range level.buckets {
		names, err := level.bucket(byte(first))
		if err != nil {
			return any, err
		}
		any = any || len(names) > 0
		group, inGroup := errgroup.WithContext(ctx)
		group.SetLimit(r.parallel)
		for _, n := range names {
			if inGroup.Err() != nil {
				break
			}
			group.Go(func() error { return r.look(inGroup, n, below) })
		}
		if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
			return any, err
		}
	}
	return any, nil
}

// look marks the contents of a directory or of a list, and finds what it names.
func (r *reach) look(ctx context.Context, n name, below *nameSet) error {
	id, err := n.object()
	if err != nil {
		return err
	}
	itself, inside := id, r.directory
	if n[nameKind] == aFile {
		itself, _ = id.IndexObjectID()
		inside = r.list
	}
	contents, err := r.contents(ctx, itself)
	var named []root
	if err == nil {
		named, err = inside(ctx, itself)
	}
	if passing(err) {
		return err
	}
	if err != nil {
		r.note(fmt.Errorf("object %s: %w", id, err))
		contents = append(contents, innermost(itself)...)
	}
	r.suffers(id, contents, named)
	for _, c := range contents {
		if err := r.keep(c); err != nil {
			return err
		}
	}
	for _, at := range named {
		if err := r.found(below, at); err != nil {
			return err
		}
	}
	return nil
}

// innermost is the content that an object starts with: the list over all lists. It is needed although it cannot be read.
func innermost(id object.ID) []content.ID {
	for list, ok := id.IndexObjectID(); ok; list, ok = id.IndexObjectID() {
		id = list
	}
	direct, _, ok := id.ContentID()
	if !ok {
		return nil
	}
	return []content.ID{direct}
}

// found takes an object over: its content when that is all of it, else the object for the level below.
func (r *reach) found(below *nameSet, at root) error {
	if direct, _, ok := at.object.ContentID(); ok && at.kind == aFile {
		return r.keep(direct)
	}
	n, err := nameOfObject(at.kind, at.object)
	if err != nil {
		return err
	}
	return below.add(n)
}

func (r *reach) keep(id content.ID) error {
	n, err := nameOfContent(id)
	if err != nil {
		return err
	}
	return r.of(id).add(n)
}

// of is the set that has, or would have, a content.
func (r *reach) of(id content.ID) *nameSet {
	if id.HasPrefix() {
		return r.metadata
	}
	return r.data
}

// contents are those that an object consists of. Their order says nothing.
func (r *reach) contents(ctx context.Context, id object.ID) ([]content.ID, error) {
	if direct, _, ok := id.ContentID(); ok {
		return []content.ID{direct}, nil
	}
	return r.repo.VerifyObject(ctx, id)
}

// directory reads what a directory names: of an image, or of any snapshot that stock kopia made.
func (r *reach) directory(ctx context.Context, id object.ID) (named []root, err error) {
	text, err := readWhole(ctx, r.repo, id, maxListBytes)
	if err != nil {
		return nil, err
	}
	var listing snapshot.DirManifest
	if err := json.Unmarshal(text, &listing); err != nil {
		return nil, err
	}
	for _, e := range listing.Entries {
		if e != nil && e.ObjectID != object.EmptyID {
			named = append(named, root{kindOf(e), e.ObjectID})
		}
	}
	return named, nil
}

func kindOf(e *snapshot.DirEntry) byte {
	if e.Type == snapshot.EntryTypeDirectory {
		return aDirectory
	}
	return aFile
}

// list reads the objects that a list names.
func (r *reach) list(ctx context.Context, id object.ID) ([]root, error) {
	text, err := readWhole(ctx, r.repo, id, maxListBytes)
	if err != nil {
		return nil, err
	}
	entries, err := decodeList(text)
	if err != nil {
		return nil, err
	}
	named := make([]root, len(entries))
	for i, e := range entries {
		named[i] = root{aFile, e.Object}
	}
	return named, nil
}

// suffers remembers an object that has or names a damaged content. A list that it names is looked at by itself.
func (r *reach) suffers(id object.ID, contents []content.ID, named []root) {
	hurt := slices.ContainsFunc(contents, func(c content.ID) bool { return r.hurt[c] }) || slices.ContainsFunc(named, func(at root) bool {
		direct, _, ok := at.object.ContentID()
		return ok && r.hurt[direct]
	})
	if !hurt {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suffering[id] = true
}

func (r *reach) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.damage == nil {
		r.damage = err
	}
	r.damages++
}
