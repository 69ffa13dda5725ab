package runner

import (
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// summaryOf says in the API's words what an image is. It reads the published manifest and nothing else, so that a run that finds its image published
// says the same as the one that published it.
func summaryOf(manifest image.Manifest) v1alpha1.ImageSummary {
	summary := v1alpha1.ImageSummary{
		Digest:         manifest.Digest,
		SnapshotTime:   metav1.NewTime(manifest.TakenAt),
		Type:           v1alpha1.ImageFull,
		Consistency:    v1alpha1.AchievedConsistency(manifest.Consistency),
		Method:         v1alpha1.BackupMethod(manifest.Method),
		ProtectedBytes: manifest.ProtectedBytes(),
		ReadBytes:      manifest.ReadBytes(),
		StoredBytes:    manifest.StoredBytes,
	}
	describeMethod(&summary, manifest.Annotations)
	full := v1alpha1.ImageFull
	if manifest.Annotations[annotationRunType] == string(v1alpha1.RunForcedRescan) {
		full = v1alpha1.ImageForcedRescan
	}
	summary.Type = full
	for _, disk := range manifest.Disks {
		d := diskSummary(disk, full)
		if d.Type == v1alpha1.ImageIncremental {
			summary.Type = v1alpha1.ImageIncremental
			summary.ChangedBytes += d.ChangedBytes
		}
		summary.Disks = append(summary.Disks, d)
	}
	for _, disk := range manifest.Excluded {
		reason, message, _ := strings.Cut(disk.Reason, ": ")
		summary.Disks = append(summary.Disks, v1alpha1.DiskSummary{
			Key: disk.Key, Included: v1alpha1.DiskExcluded, Reason: reason, Message: cut(message, maxMessage),
		})
	}
	summary.OptimizationPercent = optimization(summary.ReadBytes, manifest.Annotations[annotationAllocated])
	return summary
}

// describeMethod adds what is recorded about the method. Images of older agents have nothing of it.
func describeMethod(summary *v1alpha1.ImageSummary, annotations map[string]string) {
	reason, message, _ := strings.Cut(annotations[annotationMethodReason], ": ")
	summary.MethodReason, summary.MethodMessage = reason, cut(message, maxMessage)
	summary.Memory = v1alpha1.MemoryCapture(annotations[annotationMemory])
	if summary.Memory == v1alpha1.MemoryNotCaptured {
		summary.MemoryMessage = notCaptured(summary.Method)
	}
	if n, err := strconv.ParseInt(annotations[annotationInterruption], 10, 64); err == nil && n > 0 {
		summary.InterruptionMilliseconds = &n
	}
}

// notCaptured says why a method left the memory of a virtual machine that ran, or was paused, out (EZ-06).
func notCaptured(method v1alpha1.BackupMethod) string {
	if method == v1alpha1.MethodVSS {
		return "memory not captured: the Hyper-V writer did not save the virtual machine for the snapshot"
	}
	return "memory not captured: a recovery checkpoint freezes the disks alone; a standard one, which has the memory, is neither application consistent nor tracked"
}

func diskSummary(disk image.DiskRecord, full v1alpha1.ImageType) v1alpha1.DiskSummary {
	reason, message, _ := strings.Cut(disk.Reason, ": ")
	summary := v1alpha1.DiskSummary{
		Key: disk.Key, Included: v1alpha1.DiskIncluded, Type: full, Reason: reason, Message: cut(message, maxMessage),
		VirtualBytes: disk.Size, ReadBytes: disk.ReadBytes,
	}
	describeReadPath(&summary, disk.ReadPath)
	if disk.Type == image.Incremental {
		summary.Type, summary.ChangedBytes = v1alpha1.ImageIncremental, disk.ChangedBytes
	}
	return summary
}

// readPathText is what an image records about how a disk was reached: "Path Reason: message".
func readPathText(c hyperv.ReadChoice) string {
	return fmt.Sprintf("%s %s: %s", c.Path, c.Reason, c.Message)
}

// describeReadPath is the reverse of readPathText. Images of older agents have nothing of it.
func describeReadPath(summary *v1alpha1.DiskSummary, text string) {
	choice, message, _ := strings.Cut(text, ": ")
	path, reason, _ := strings.Cut(choice, " ")
	summary.ReadPath, summary.ReadPathReason, summary.ReadPathMessage = v1alpha1.DiskReadPath(path), reason, cut(message, maxMessage)
}

// optimization is the share of the allocated bytes that did not have to be read, in percent.
func optimization(read int64, allocatedText string) int32 {
	allocated, err := strconv.ParseInt(allocatedText, 10, 64)
	if err != nil || allocated <= 0 || read >= allocated {
		return 0
	}
	return int32(100 - read*100/allocated)
}
