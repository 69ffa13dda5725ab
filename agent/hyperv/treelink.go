package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// treeLinks ties the disk files of a tree together.
type treeLinks struct {
	host  *Host
	disks []MovedFile
	// chains are the files that are tied, each with all beneath it, topmost first. opened are those that are looked at.
	chains map[int][]*vhdx.File
	opened map[int]hostfs.File
}

// LinkTree has each differencing disk of a tree that was moved name the file beneath it where that is now, and checks that it was made above that. It may be
// called again. ErrDiskMismatch when the files do not belong together.
func (h *Host) LinkTree(ctx context.Context, disks []MovedFile) error {
	l := &treeLinks{host: h, disks: disks, chains: map[int][]*vhdx.File{}, opened: map[int]hostfs.File{}}
	err := l.all(ctx)
	if errors.Is(err, vhdx.ErrCorrupt) || errors.Is(err, vhdx.ErrUnsupported) || errors.Is(err, vhdx.ErrParentMismatch) {
		err = fmt.Errorf("%w: %w", ErrDiskMismatch, err)
	}
	for _, file := range l.opened {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("tie the disks of the checkpoints together: %w", err)
	}
	return nil
}

// all goes through the files until each is tied, those first that stand on what is tied already.
func (l *treeLinks) all(ctx context.Context) error {
	for len(l.chains) < len(l.disks) {
		before := len(l.chains)
		for i, disk := range l.disks {
			if l.chains[i] != nil {
				continue
			}
			if err := l.tie(ctx, i); err != nil {
				return fmt.Errorf("%s: %w", disk.From, err)
			}
		}
		if len(l.chains) == before {
			return fmt.Errorf("%w: they lead in a circle", ErrDiskMismatch)
		}
	}
	return nil
}

// tie ties one file, if what is beneath it is tied.
func (l *treeLinks) tie(ctx context.Context, i int) error {
	file, size, err := l.open(ctx, i)
	if err != nil {
		return err
	}
	member, err := vhdx.Open(file, size)
	if err != nil {
		return err
	}
	if member.Kind() != vhdx.Differencing {
		l.chains[i] = []*vhdx.File{member}
		return nil
	}
	beneath := l.beneath(i, member.Locator())
	if beneath < 0 {
		return fmt.Errorf("%w: the file beneath it is none of theirs", ErrDiskMismatch)
	}
	if l.chains[beneath] == nil {
		return nil
	}
	parents, err := vhdx.NewDisk(l.chains[beneath]...)
	if err != nil {
		return err
	}
	writer, err := vhdx.OpenWriter(file, size, parents)
	if err != nil {
		return err
	}
	ref := vhdx.ParentRef{DataWriteID: l.chains[beneath][0].DataWriteID(), AbsolutePath: l.disks[beneath].To}
	folder, _ := splitPath(l.disks[i].To)
	if parent, name := splitPath(l.disks[beneath].To); strings.EqualFold(folder, parent) {
		ref.RelativePath = `.\` + name
	}
	if err := errors.Join(writer.SetParent(ref), writer.Close()); err != nil {
		return err
	}
	l.chains[i] = append([]*vhdx.File{writer.File()}, l.chains[beneath]...)
	return nil
}

func (l *treeLinks) open(ctx context.Context, i int) (hostfs.File, int64, error) {
	if l.opened[i] == nil {
		file, err := l.host.files.OpenWrite(ctx, l.disks[i].To)
		if err != nil {
			return nil, 0, err
		}
		l.opened[i] = file
	}
	size, err := l.opened[i].Size()
	return l.opened[i], size, err
}

// beneath finds the file beneath another by the names that it gives: those that the files had, or have, where it was tied before. -1 for none.
func (l *treeLinks) beneath(i int, locator map[string]string) int {
	was, _ := splitPath(l.disks[i].From)
	is, _ := splitPath(l.disks[i].To)
	relative, absolute := locator[vhdx.KeyRelativePath], locator[vhdx.KeyAbsolutePath]
	for _, name := range []string{climb(was, relative), climb(is, relative), absolute} {
		at := slices.IndexFunc(l.disks, func(other MovedFile) bool {
			return strings.EqualFold(name, other.From) || strings.EqualFold(name, other.To)
		})
		if name != "" && at >= 0 {
			return at
		}
	}
	return -1
}
