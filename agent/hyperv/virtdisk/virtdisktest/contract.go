package virtdisktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// Subject is an implementation, and the host behind it.
type Subject struct {
	Disks    virtdisk.Service
	Attacher virtdisk.Attacher
	Host     Host
	Fixture  Fixture
}

// Host makes the emulated host misbehave, and looks at it.
type Host interface {
	// FailNext makes the next calls of a function of virtdisk.dll return a code.
	FailNext(function string, code uint32, times int) error
	// LimitChanges makes each answer for changes have at most n ranges; zero ends that.
	LimitChanges(n int) error
	// DiskHandles are the paths of the virtual disks that are open.
	DiskHandles() ([]string, error)
}

// Contract tests an implementation. Every test ends with no virtual disk open.
func Contract(t *testing.T, s Subject) {
	for name, test := range map[string]func(*testing.T){
		"a disk is described":                     s.information,
		"change tracking is switched on":          s.tracking,
		"changes are those since the id":          s.changes,
		"an answer may come in pieces":            s.pages,
		"an id that does not resolve is lost":     s.lost,
		"files that are no disks":                 s.noDisks,
		"errors of the host keep what they mean":  s.failures,
		"a disk is read by its handle":            func(t *testing.T) { s.read(t, virtdisk.ByHandle) },
		"a disk is read as a disk of the host":    func(t *testing.T) { s.read(t, virtdisk.AsDisk) },
		"a disk is attached once":                 s.attachedOnce,
		"a disk that a VM writes is not attached": s.live,
		"an attach that fails leaves nothing":     s.attachFailures,
		"calls that are given up":                 s.givenUp,
		"calls and reads of many goroutines":      s.concurrent,
	} {
		t.Run(name, func(t *testing.T) {
			test(t)
			if open, err := s.Host.DiskHandles(); err != nil || len(open) != 0 {
				t.Errorf("left open: %v, %v", open, err)
			}
		})
	}
}

func (s Subject) information(t *testing.T) {
	f := s.Fixture
	for path, parent := range map[string]string{f.Base: "", f.Frozen: f.Base, f.Live: f.Frozen} {
		info, err := s.Disks.Info(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if info.VirtualSize != f.Size || info.SectorSize != 512 || info.PhysicalSectorSize != 4096 || info.BlockSize == 0 || info.FileSize == 0 {
			t.Errorf("%s: %+v", path, info)
		}
		if info.DiskID != f.DiskID || info.ParentPath != parent {
			t.Errorf("%s: %+v, not the disk %s on %q", path, info, f.DiskID, parent)
		}
		if tracked := path != f.Base; info.TrackingEnabled != tracked || (info.MostRecentID != "") != tracked {
			t.Errorf("%s: %+v, tracked should be %t", path, info, tracked)
		}
	}
}

func (s Subject) tracking(t *testing.T) {
	for range 2 { // again does nothing
		if err := s.Disks.EnableChangeTracking(t.Context(), s.Fixture.Live); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Disks.EnableChangeTracking(t.Context(), s.Fixture.Frozen); !errors.Is(err, virtdisk.ErrTrackingUnsupported) {
		t.Errorf("of a file that no VM writes: %v", err)
	}
}

// changesOf asks until the whole window is covered, and returns how many answers that took.
func (s Subject) changesOf(ctx context.Context, window extent.Extent) (changed extent.List, answers int, err error) {
	for window.Length > 0 {
		some, processed, err := s.Disks.Changes(ctx, s.Fixture.Frozen, s.Fixture.RCTID, window)
		if err != nil {
			return nil, 0, err
		}
		if processed <= 0 || processed > window.Length {
			return nil, 0, fmt.Errorf("%d of %d bytes were processed", processed, window.Length)
		}
		changed, answers = append(changed, some...), answers+1
		window = extent.Extent{Offset: window.Offset + processed, Length: window.Length - processed}
	}
	return extent.Normalize(changed), answers, nil
}

func (s Subject) changes(t *testing.T) {
	whole := extent.Extent{Length: s.Fixture.Size}
	got, _, err := s.changesOf(t.Context(), whole)
	if want := extent.Normalize(s.Fixture.Changed); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, not %v; %v", got, want, err)
	}
	second := s.Fixture.Changed[1]
	got, _, err = s.changesOf(t.Context(), extent.Extent{Offset: second.Offset - 512, Length: 1024})
	if want := (extent.List{{Offset: second.Offset, Length: 512}}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("in a window: %v, not %v; %v", got, want, err)
	}
}

func (s Subject) pages(t *testing.T) {
	want, _, err := s.changesOf(t.Context(), extent.Extent{Length: s.Fixture.Size})
	if err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]func() error{
		"small":          func() error { return s.Host.LimitChanges(3) },
		"with more data": func() error { return s.Host.FailNext("QueryChangesVirtualDisk", virtdisk.CodeMoreData, 2) },
	} {
		if err := fault(); err != nil {
			t.Fatal(err)
		}
		got, answers, err := s.changesOf(t.Context(), extent.Extent{Length: s.Fixture.Size})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, not %v; %v", name, got, want, err)
		}
		if name == "small" && answers < 7 {
			t.Errorf("%d changes came in %d answers of 3", len(got), answers)
		}
		if err := s.Host.LimitChanges(0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Host.FailNext("QueryChangesVirtualDisk", virtdisk.CodeAccessDenied, 1); err != nil { // uses up what is left of the fault before
		t.Fatal(err)
	}
	for {
		if _, _, err := s.changesOf(t.Context(), extent.Extent{Length: s.Fixture.Size}); errors.Is(err, virtdisk.ErrAccessDenied) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func (s Subject) lost(t *testing.T) {
	ask := func(id string) error {
		_, _, err := s.Disks.Changes(t.Context(), s.Fixture.Frozen, id, extent.Extent{Length: s.Fixture.Size})
		return err
	}
	for _, id := range []string{"rctX:00000000:0000:0000:0000:000000000000:00000001", "x", ""} {
		if err := ask(id); !errors.Is(err, virtdisk.ErrTrackingLost) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
	for _, code := range []uint32{virtdisk.CodeTrackingIDInvalid, virtdisk.CodeTrackingDisabled, virtdisk.CodeTrackingMissing} {
		if err := s.Host.FailNext("QueryChangesVirtualDisk", code, 1); err != nil {
			t.Fatal(err)
		}
		if err := ask(s.Fixture.RCTID); !errors.Is(err, virtdisk.ErrTrackingLost) {
			t.Errorf("error %#x: %v", code, err)
		}
	}
}

func (s Subject) noDisks(t *testing.T) {
	for path, want := range map[string]error{s.Fixture.NoDisk: virtdisk.ErrNotVirtualDisk, s.Fixture.Base + "x": virtdisk.ErrFileNotFound} {
		_, infoErr := s.Disks.Info(t.Context(), path)
		_, _, changesErr := s.Disks.Changes(t.Context(), path, s.Fixture.RCTID, extent.Extent{Length: 512})
		_, attachErr := s.Attacher.Attach(t.Context(), path, virtdisk.ByHandle)
		for call, err := range map[string]error{
			"information": infoErr, "changes": changesErr, "attach": attachErr, "tracking": s.Disks.EnableChangeTracking(t.Context(), path),
		} {
			if !errors.Is(err, want) {
				t.Errorf("%s of %s: %v, not %v", call, path, err, want)
			}
		}
	}
}

func (s Subject) failures(t *testing.T) {
	calls := map[string]func() error{
		"OpenVirtualDisk":           func() error { _, err := s.Disks.Info(t.Context(), s.Fixture.Base); return err },
		"GetVirtualDiskInformation": func() error { _, err := s.Disks.Info(t.Context(), s.Fixture.Base); return err },
		"SetVirtualDiskInformation": func() error { return s.Disks.EnableChangeTracking(t.Context(), s.Fixture.Live) },
		"QueryChangesVirtualDisk": func() error {
			_, _, err := s.Disks.Changes(t.Context(), s.Fixture.Frozen, s.Fixture.RCTID, extent.Extent{Length: 512})
			return err
		},
		"AttachVirtualDisk": func() error { return s.attachAndClose(t.Context(), virtdisk.ByHandle) },
	}
	for function, call := range calls {
		for code, want := range map[uint32]error{
			virtdisk.CodeAccessDenied: virtdisk.ErrAccessDenied, virtdisk.CodeSharingViolation: virtdisk.ErrInUse, virtdisk.CodeServerUnavailable: virtdisk.ErrDisconnected,
		} {
			if err := s.Host.FailNext(function, code, 1); err != nil {
				t.Fatal(err)
			}
			if err := call(); !errors.Is(err, want) {
				t.Errorf("%s with error %d: %v, not %v", function, code, err, want)
			}
			if err := call(); err != nil {
				t.Errorf("%s afterwards: %v", function, err)
			}
		}
	}
}

func (s Subject) attachAndClose(ctx context.Context, way virtdisk.Way) error {
	content, err := s.Attacher.Attach(ctx, s.Fixture.Frozen, way)
	if err != nil {
		return err
	}
	return content.Close()
}

func (s Subject) attach(t *testing.T, way virtdisk.Way) virtdisk.Content {
	t.Helper()
	content, err := s.Attacher.Attach(t.Context(), s.Fixture.Frozen, way)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = content.Close() }) // for tests that failed; a second call does nothing
	return content
}

func (s Subject) read(t *testing.T, way virtdisk.Way) {
	content, want := s.attach(t, way), s.Fixture.content()
	if content.Size() != s.Fixture.Size {
		t.Errorf("%d bytes, not %d", content.Size(), s.Fixture.Size)
	}
	got := make([]byte, len(want))
	if n, err := content.ReadAt(got, 0); n != len(want) || (err != nil && !errors.Is(err, io.EOF)) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the content is not what the guest had written when the disk was frozen")
	}
	for _, part := range []extent.Extent{{Offset: unit - 1, Length: 3}, {Offset: 5000, Length: 2 << 20}, {Offset: s.Fixture.Size - 1, Length: 1}} {
		if _, err := content.ReadAt(got[:part.Length], part.Offset); (err != nil && !errors.Is(err, io.EOF)) || !bytes.Equal(got[:part.Length], want[part.Offset:part.End()]) {
			t.Errorf("%v is wrong, %v", part, err)
		}
	}
	s.readEnd(t, content)
	for range 2 {
		if err := content.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (s Subject) readEnd(t *testing.T, content virtdisk.Content) {
	t.Helper()
	got := make([]byte, 10)
	if n, err := content.ReadAt(got, s.Fixture.Size-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	if n, err := content.ReadAt(got, s.Fixture.Size); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
}

func (s Subject) attachedOnce(t *testing.T) {
	content := s.attach(t, virtdisk.ByHandle)
	for _, way := range []virtdisk.Way{virtdisk.ByHandle, virtdisk.AsDisk} {
		if err := s.attachAndClose(t.Context(), way); !errors.Is(err, virtdisk.ErrInUse) {
			t.Errorf("attached a second time (%s): %v", way, err)
		}
	}
	other, err := s.Attacher.Attach(t.Context(), s.Fixture.Base, virtdisk.AsDisk)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(other.Close(), content.Close(), s.attachAndClose(t.Context(), virtdisk.AsDisk)); err != nil {
		t.Error(err)
	}
}

func (s Subject) live(t *testing.T) {
	if content, err := s.Attacher.Attach(t.Context(), s.Fixture.Live, virtdisk.ByHandle); !errors.Is(err, virtdisk.ErrInUse) {
		t.Errorf("%v, %v", content, err)
	}
	_, _, err := s.Disks.Changes(t.Context(), s.Fixture.Live, s.Fixture.RCTID, extent.Extent{Length: 512})
	if !errors.Is(err, virtdisk.ErrInUse) {
		t.Errorf("changes of it: %v", err)
	}
}

func (s Subject) attachFailures(t *testing.T) {
	for _, fault := range []struct {
		function string
		code     uint32
		want     error
		way      virtdisk.Way
	}{
		{"OpenVirtualDisk", virtdisk.CodeFileNotFound, virtdisk.ErrFileNotFound, virtdisk.ByHandle},
		{"GetVirtualDiskInformation", virtdisk.CodeAccessDenied, virtdisk.ErrAccessDenied, virtdisk.ByHandle},
		{"AttachVirtualDisk", virtdisk.CodePrivilegeNotHeld, virtdisk.ErrAccessDenied, virtdisk.ByHandle},
		{"AttachVirtualDisk", virtdisk.CodeLimitation, virtdisk.ErrLimitation, virtdisk.AsDisk},
		{"GetVirtualDiskPhysicalPath", virtdisk.CodeAccessDenied, virtdisk.ErrAccessDenied, virtdisk.AsDisk},
		{"DetachVirtualDisk", virtdisk.CodeAccessDenied, virtdisk.ErrAccessDenied, virtdisk.AsDisk}, // it is detached all the same
	} {
		if err := s.Host.FailNext(fault.function, fault.code, 1); err != nil {
			t.Fatal(err)
		}
		if err := s.attachAndClose(t.Context(), fault.way); !errors.Is(err, fault.want) {
			t.Errorf("%s with error %d: %v", fault.function, fault.code, err)
		}
		if open, err := s.Host.DiskHandles(); err != nil || len(open) != 0 {
			t.Errorf("%s with error %d left open: %v, %v", fault.function, fault.code, open, err)
		}
	}
}

func (s Subject) givenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, infoErr := s.Disks.Info(ctx, s.Fixture.Base)
	_, _, changesErr := s.Disks.Changes(ctx, s.Fixture.Frozen, s.Fixture.RCTID, extent.Extent{Length: 512})
	for call, err := range map[string]error{
		"information": infoErr, "changes": changesErr, "attach": s.attachAndClose(ctx, virtdisk.ByHandle),
		"tracking": s.Disks.EnableChangeTracking(ctx, s.Fixture.Live),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

func (s Subject) concurrent(t *testing.T) {
	content, want := s.attach(t, virtdisk.ByHandle), s.Fixture.content()
	const workers, piece = 8, 3<<20 + 17
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			_, infoErr := s.Disks.Info(t.Context(), s.Fixture.Frozen)
			got := make([]byte, piece)
			_, readErr := content.ReadAt(got, int64(i)*piece)
			if errors.Is(readErr, io.EOF) {
				readErr = nil
			}
			expected := make([]byte, piece)
			copy(expected, want[min(len(want), i*piece):])
			if !bytes.Equal(got, expected) {
				readErr = errors.Join(readErr, fmt.Errorf("piece %d is wrong", i))
			}
			errs[i] = errors.Join(infoErr, readErr)
		})
	}
	wg.Wait()
	if err := errors.Join(errors.Join(errs...), content.Close()); err != nil {
		t.Error(err)
	}
}
