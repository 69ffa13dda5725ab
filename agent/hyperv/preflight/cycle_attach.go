package preflight

import (
	"context"
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// readOtherwise reads the same pieces through the host's own storage stack, in each of its ways, and compares. A way that does not work is told and is no
// error: another one does.
func (c *cycle) readOtherwise(ctx context.Context, disk hyperv.FrozenDisk, want samples, m *DiskMeasurement) {
	attacher := c.Seams.Attacher
	if attacher == nil {
		return
	}
	for _, way := range []virtdisk.Way{virtdisk.ByHandle, virtdisk.AsDisk} {
		began := c.Seams.Clock.Now()
		err := readAttached(ctx, attacher, disk, way, want)
		r := Read{Way: string(way), Millis: c.since(began)}
		if err != nil {
			r.Problem = err.Error()
		}
		m.Reads = append(m.Reads, r)
	}
}

// errDiffers means that two ways to read a frozen disk do not give the same bytes.
var errDiffers = errors.New("gives other bytes than the files do")

func readAttached(ctx context.Context, attacher virtdisk.Attacher, disk hyperv.FrozenDisk, way virtdisk.Way, want samples) (err error) {
	content, err := attacher.Attach(ctx, disk.Path, way)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	got, err := hashes(ctx, content, content.Size(), want.offsets())
	if err != nil {
		return err
	}
	for offset, hash := range want {
		if got[offset] != hash {
			return errDiffers
		}
	}
	return nil
}
