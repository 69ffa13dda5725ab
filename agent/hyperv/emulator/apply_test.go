package emulator

import (
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestChangesThroughWMIAreThoseOfVirtdisk(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, _ *Host, w *world) {
		point := w.done(w.invoke(pointService, "CreateReferencePoint", wmi.Params{
			"AffectedSystem": w.vm("CRM").Path, "ReferencePointType": int64(referencePointRCT),
		}))
		points := w.associated(point.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemReferencePoint")
		if len(points) != 1 {
			t.Fatalf("%d reference points were made", len(points))
		}
		ids, _ := points[0].Strings("ResilientChangeTrackingIdentifiers")
		w.merged("CRM")
		file := w.diskFiles(w.checkpoint("CRM", consistencyCrash))[0]
		r := w.invoke("Msvm_ImageManagementService", "GetVirtualDiskChanges", wmi.Params{
			"Path": file, "LimitId": ids[0], "ByteOffset": int64(0), "ByteLength": int64(64 << 20),
		})
		offsets, _ := r.Out["ChangedByteOffsets"].([]int64)
		if r.ReturnValue != codeDone || r.Out["ProcessedByteLength"] != int64(64<<20) || len(offsets) != 0 {
			t.Errorf("%d: %v", r.ReturnValue, r.Out)
		}
		for what, c := range map[string]struct {
			path, id string
			want     uint32
		}{
			"an id of nobody": {file, "rctX:0", codeFailed},
			"no such file":    {`D:\VMs\no.vhdx`, ids[0], codeFileNotFound},
		} {
			r := w.invoke("Msvm_ImageManagementService", "GetVirtualDiskChanges", wmi.Params{
				"Path": c.path, "LimitId": c.id, "ByteOffset": int64(0), "ByteLength": int64(1 << 20),
			})
			if r.ReturnValue != c.want {
				t.Errorf("%s: %d", what, r.ReturnValue)
			}
		}
	})
}
