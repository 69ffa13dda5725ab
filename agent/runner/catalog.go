package runner

import (
	"context"
	"encoding/json"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// A page of the catalog has so many images and bytes at most: the API server takes objects of 1.5 MiB, and the manager makes an object of each image.
const (
	pageImages = v1alpha1.CatalogPageSize
	pageBytes  = 512 << 10
)

// syncCatalog tells what images a repository has, page by page.
type syncCatalog struct{ repositories *Repositories }

func (s *syncCatalog) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Read"); err != nil {
		return err
	}
	return s.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		found, err := repository.Page(ctx, task.Spec.Catalog.After, pageImages)
		if err != nil {
			return err
		}
		page, err := catalogPage(found)
		if err != nil {
			return err
		}
		return report.Catalog(ctx, page)
	})
}

// catalogPage says a page in the API's words. It ends early when it gets too large.
func catalogPage(found image.Page) (v1alpha1.CatalogPage, error) {
	page := v1alpha1.CatalogPage{Total: int32(found.Total), Unreadable: int32(found.Damaged), Next: found.Next}
	size := 0
	for i, listed := range found.Images {
		entry, ok := catalogEntry(listed.Manifest)
		if !ok {
			page.Unreadable++
			continue
		}
		text, err := json.Marshal(entry)
		if err != nil {
			return page, err
		}
		if size += len(text); size > pageBytes && len(page.Images) > 0 {
			page.Next = found.Images[i-1].At
			break
		}
		page.Images = append(page.Images, entry)
	}
	return page, nil
}

// catalogEntry is the reverse of backupRun.imageSpec. ok is false for an image that no task of ours made: whoever has the password can write what the API
// server would refuse, and with it the whole page.
func catalogEntry(manifest image.Manifest) (entry v1alpha1.CatalogEntry, ok bool) {
	entry = v1alpha1.CatalogEntry{
		ImageID: manifest.ID, Namespace: manifest.Annotations[annotationNamespace], PolicyName: manifest.Policy,
		VirtualMachine: v1alpha1.ImageVirtualMachine{
			ID: manifest.VM.ID, Name: manifest.VM.Name, ObjectName: manifest.Annotations[annotationObjectName], HostName: manifest.VM.Host,
		},
		Summary: summaryOf(manifest),
	}
	if text := manifest.Annotations[annotationRetention]; text != "" {
		entry.Retention = &v1alpha1.Retention{}
		if json.Unmarshal([]byte(text), entry.Retention) != nil || !soundRetention(*entry.Retention) {
			return entry, false
		}
	}
	name := func(text string, longest int) bool {
		return len(validation.IsDNS1123Label(text)) == 0 && len(text) <= longest
	}
	vm := entry.VirtualMachine
	return entry, name(entry.ImageID, 63) && name(entry.Namespace, 63) && (entry.PolicyName == "" || name(entry.PolicyName, 40)) &&
		name(vm.ID, 63) && vm.Name != "" && len(vm.Name) <= 256 && name(vm.ObjectName, 63) && name(vm.HostName, 63) && soundSummary(entry.Summary)
}

func soundRetention(r v1alpha1.Retention) bool {
	const mostKept, longestAge = 10000, 32
	if r.KeepLast != nil && (*r.KeepLast < 1 || *r.KeepLast > mostKept) || r.KeepLast == nil && r.MaxAge == nil {
		return false
	}
	if r.MaxAge == nil {
		return true
	}
	_, err := r.MaxAge.Duration()
	return err == nil && len(*r.MaxAge) <= longestAge
}

// soundSummary checks what a manifest states in words of ours.
func soundSummary(s v1alpha1.ImageSummary) bool {
	keys := map[string]bool{}
	for _, d := range s.Disks {
		if keys[d.Key] || !soundDisk(d) {
			return false
		}
		keys[d.Key] = true
	}
	return !s.SnapshotTime.IsZero() && len(s.MethodReason) <= 64 && len(s.Disks) <= 256 &&
		min(s.StoredBytes, s.ProtectedBytes, s.ReadBytes, s.ChangedBytes) >= 0 &&
		oneOf(s.Consistency, v1alpha1.ConsistencyApplication, v1alpha1.ConsistencyCrash, v1alpha1.ConsistencyOffline) &&
		oneOf(s.Method, v1alpha1.MethodWMI, v1alpha1.MethodVSS) &&
		oneOf(s.Memory, "", v1alpha1.MemoryCaptured, v1alpha1.MemoryNotCaptured, v1alpha1.MemoryNone)
}

func soundDisk(d v1alpha1.DiskSummary) bool {
	return d.Key != "" && len(d.Key) <= 64 && len(d.Reason) <= 64 && len(d.ReadPathReason) <= 64 &&
		min(d.VirtualBytes, d.ReadBytes, d.ChangedBytes) >= 0 &&
		oneOf(d.ReadPath, "", v1alpha1.ReadPathFiles, v1alpha1.ReadPathHandle, v1alpha1.ReadPathDisk)
}

func oneOf[T comparable](value T, known ...T) bool { return slices.Contains(known, value) }
