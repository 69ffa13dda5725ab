package runner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// published is a manifest as a task of ours writes it.
func published(edit func(*image.Manifest)) image.Manifest {
	m := image.Manifest{
		ID: "5f0a6f0e-9d57-4b1f-8a55-3f3f1c1b7a10", Policy: "daily", VM: image.VM{ID: "4f3c1e0a-0000-4000-8000-000000000001", Name: "Web 01", Host: "hv01"},
		TakenAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Consistency: "Application", Method: "WMI",
		Annotations: map[string]string{annotationNamespace: "sales", annotationObjectName: "web-01-4f3c", annotationRetention: `{"keepLast":3,"maxAge":"2w"}`},
		Disks:       []image.DiskRecord{{Key: "SCSI-0-0", Size: 5, ReadPath: "Files Preferred: short"}},
	}
	edit(&m)
	return m
}

func TestCatalogEntrySaysWhatTheImageWasMadeOf(t *testing.T) {
	entry, ok := catalogEntry(published(func(*image.Manifest) {}))
	if !ok || entry.Namespace != "sales" || entry.PolicyName != "daily" || *entry.Retention.KeepLast != 3 || *entry.Retention.MaxAge != "2w" {
		t.Errorf("%v: %+v", ok, entry)
	}
	want := v1alpha1.ImageVirtualMachine{ID: "4f3c1e0a-0000-4000-8000-000000000001", Name: "Web 01", ObjectName: "web-01-4f3c", HostName: "hv01"}
	if entry.VirtualMachine != want || entry.Summary.ProtectedBytes != 5 || entry.Summary.Disks[0].ReadPath != v1alpha1.ReadPathFiles {
		t.Errorf("%+v", entry)
	}
}

// TestForeignManifestsAreNotTakenOver has what somebody with the password may write: one such image must not make the API server refuse a whole page.
func TestForeignManifestsAreNotTakenOver(t *testing.T) {
	for name, edit := range map[string]func(*image.Manifest){
		"no namespace":                func(m *image.Manifest) { delete(m.Annotations, annotationNamespace) },
		"a namespace that is none":    func(m *image.Manifest) { m.Annotations[annotationNamespace] = "../kube-system" },
		"an object name that is none": func(m *image.Manifest) { m.Annotations[annotationObjectName] = "A_B" },
		"an id that is no label":      func(m *image.Manifest) { m.VM.ID = strings.Repeat("a", 64) },
		"no host":                     func(m *image.Manifest) { m.VM.Host = "" },
		"a method of its own":         func(m *image.Manifest) { m.Method = "RCT" },
		"one disk twice":              func(m *image.Manifest) { m.Disks = append(m.Disks, m.Disks[0]) },
		"a negative size":             func(m *image.Manifest) { m.Disks[0].Size = -1 },
		"a retention of nothing":      func(m *image.Manifest) { m.Annotations[annotationRetention] = "{}" },
		"an age that is none":         func(m *image.Manifest) { m.Annotations[annotationRetention] = `{"maxAge":"soon"}` },
	} {
		if entry, ok := catalogEntry(published(edit)); ok {
			t.Errorf("%s: %+v", name, entry)
		}
	}
}

func TestPageEndsBeforeItGetsTooLarge(t *testing.T) {
	var found image.Page
	for i := range 8 {
		found.Images = append(found.Images, image.Listed{At: fmt.Sprint("place-", i), Manifest: published(func(m *image.Manifest) {
			m.Disks = nil
			for n := range 200 {
				m.Disks = append(m.Disks, image.DiskRecord{Key: fmt.Sprint("SCSI-", n), Reason: "Long: " + strings.Repeat("x", maxMessage)})
			}
		})})
	}
	found.Next = "the end"
	page, err := catalogPage(found)
	if err != nil || len(page.Images) == 0 || len(page.Images) == len(found.Images) || page.Next != found.Images[len(page.Images)-1].At {
		t.Errorf("%d images, next %q, %v", len(page.Images), page.Next, err)
	}
}

func TestImageOfAnotherNamespaceIsRefused(t *testing.T) {
	manifest := published(func(*image.Manifest) {})
	if err := allowed(&v1alpha1.RestoreTask{Namespace: "hr"}, manifest); err == nil || failureOf(err).Reason != v1alpha1.ReasonImageOfAnotherNamespace {
		t.Errorf("%v", err)
	}
	for _, namespace := range []string{"sales", ""} {
		if err := allowed(&v1alpha1.RestoreTask{Namespace: namespace}, manifest); err != nil {
			t.Errorf("%q: %v", namespace, err)
		}
	}
}
