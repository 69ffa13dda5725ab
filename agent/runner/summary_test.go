package runner

import (
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestSummaryOf(t *testing.T) {
	full := image.DiskRecord{Key: "SCSI-0-0", Type: image.Full, Size: 100, ReadBytes: 40, ChangedBytes: 40, Reason: "FirstBackup: no image: yet"}
	increment := image.DiskRecord{Key: "SCSI-0-1", Type: image.Incremental, Size: 100, ReadBytes: 5, ChangedBytes: 3, Reason: reasonChanged.String()}
	excluded := image.ExcludedDisk{Key: "SCSI-0-2", Reason: "PassThroughDisk: back it up in the guest"}
	manifest := func(run v1alpha1.RunType, disks ...image.DiskRecord) image.Manifest {
		return image.Manifest{
			Disks: disks, Excluded: []image.ExcludedDisk{excluded}, Consistency: "Crash", Method: "WMI", StoredBytes: 7,
			Annotations: map[string]string{annotationRunType: string(run), annotationAllocated: "100"},
		}
	}
	cases := map[string]struct {
		manifest     image.Manifest
		kind         v1alpha1.ImageType
		changed      int64
		optimization int32
	}{
		"all disks in full":                    {manifest(v1alpha1.RunAuto, full), v1alpha1.ImageFull, 0, 60},
		"one of them by its changes":           {manifest(v1alpha1.RunAuto, full, increment), v1alpha1.ImageIncremental, 3, 55},
		"a forced rescan (AC-15)":              {manifest(v1alpha1.RunForcedRescan, full, full, full), v1alpha1.ImageForcedRescan, 0, 0},
		"an accelerated full is read in parts": {manifest(v1alpha1.RunFull, increment), v1alpha1.ImageIncremental, 3, 95},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := summaryOf(c.manifest)
			if got.Type != c.kind || got.ChangedBytes != c.changed || got.OptimizationPercent != c.optimization {
				t.Errorf("got %s, %d changed, %d %% (AC-17)", got.Type, got.ChangedBytes, got.OptimizationPercent)
			}
			last := got.Disks[len(got.Disks)-1]
			if last.Included != v1alpha1.DiskExcluded || last.Reason != "PassThroughDisk" || last.Message != "back it up in the guest" {
				t.Errorf("the excluded disk is %+v (EZ-22)", last)
			}
		})
	}
	if first := summaryOf(manifest(v1alpha1.RunAuto, full)).Disks[0]; first.Reason != "FirstBackup" || first.Message != "no image: yet" {
		t.Errorf("the reason was cut wrongly: %+v", first)
	}
	full.ReadPath = readPathText(hyperv.ReadChoice{Path: hyperv.ReadHandle, Reason: hyperv.ChainLogged, Message: "its log: not empty"})
	first := summaryOf(manifest(v1alpha1.RunAuto, full)).Disks[0]
	if first.ReadPath != v1alpha1.ReadPathHandle || first.ReadPathReason != "ChainLogged" || first.ReadPathMessage != "its log: not empty" {
		t.Errorf("the read path was cut wrongly: %+v", first)
	}
}

func TestSummarySaysWhyTheMemoryIsMissing(t *testing.T) { // EZ-06
	cases := map[string]struct {
		method v1alpha1.BackupMethod
		memory v1alpha1.MemoryCapture
		want   string
	}{
		"a running machine by WMI":                  {v1alpha1.MethodWMI, v1alpha1.MemoryNotCaptured, "recovery checkpoint"},
		"a running machine that VSS did not save":   {v1alpha1.MethodVSS, v1alpha1.MemoryNotCaptured, "did not save"},
		"a saved one has it, and needs no excuse":   {v1alpha1.MethodWMI, v1alpha1.MemoryCaptured, ""},
		"one that was off has none, and needs none": {v1alpha1.MethodWMI, v1alpha1.MemoryNone, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := summaryOf(image.Manifest{Method: string(c.method), Annotations: map[string]string{annotationMemory: string(c.memory)}})
			if got.Memory != c.memory || (c.want == "") != (got.MemoryMessage == "") || !strings.Contains(got.MemoryMessage, c.want) {
				t.Errorf("got %s: %s", got.Memory, got.MemoryMessage)
			}
		})
	}
}
