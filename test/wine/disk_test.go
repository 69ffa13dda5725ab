package wine

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk/virtdisktest"
	"github.com/hyperkeep/hyperkeep/test/nbd"
)

// hurried is a clock on which waiting takes a hundredth of the time.
type hurried struct{}

func (hurried) Now() time.Time                         { return time.Now() }
func (hurried) After(d time.Duration) <-chan time.Time { return time.After(d / 100) }

func TestVirtualDisksOfWindowsKeepTheContract(t *testing.T) {
	Require(t)
	var dir string
	host, p := serveHost(t, func(t *testing.T, folder string) {
		dir = folder
		virtdisktest.Layout(t, dir)
	})
	text, err := json.Marshal(virtdisktest.NewFixture(t, dir, host, hurried{}, nbd.WriteOnce))
	if err != nil {
		t.Fatal(err)
	}
	runProgram(t, p, BuildTest(t, "agent/hyperv/virtdisk/win32"), ".", "HYPERKEEP_FIXTURE="+string(text))
	if open := host.DiskHandles(); len(open) != 0 {
		t.Errorf("left open: %v", open)
	}
	counts := host.Usage().Counts()
	for _, function := range []string{
		"OpenVirtualDisk", "AttachVirtualDisk", "DetachVirtualDisk", "GetVirtualDiskPhysicalPath", "GetVirtualDiskInformation", "SetVirtualDiskInformation", "QueryChangesVirtualDisk",
	} {
		if codes := counts.Calls[function]; codes[0] == 0 || len(codes) < 2 {
			t.Errorf("%s did not both succeed and fail: %v", function, codes)
		}
	}
}
