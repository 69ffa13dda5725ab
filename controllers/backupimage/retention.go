package backupimage

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// term is what retention says of an image.
type term struct {
	// expired is set when no rule keeps the image any more.
	expired bool
	// at is when that will be, or zero when time alone does not bring it about.
	at time.Time
	// words say it to people.
	words string
}

// judge says what retention makes of an image. While its policy exists, the policy's present retention counts; after that, only the greatest age that
// the image itself has on record. The newest usable image never expires by itself.
func judge(image *v1alpha1.BackupImage, policy *v1alpha1.BackupPolicy, series []v1alpha1.BackupImage, now time.Time) (term, error) {
	if image.Spec.Pinned {
		return term{words: "Pinned"}, nil
	}
	retention := retentionOf(image, policy)
	if retention == nil {
		return term{words: "Never"}, nil
	}
	newer := newerThan(image, series)
	if newer == 0 {
		return term{words: "Newest, is kept"}, nil
	}
	if keep := retention.KeepLast; keep != nil && newer < int(*keep) {
		return term{words: fmt.Sprintf("One of the newest %d", *keep)}, nil
	}
	if rest := restUntil(image); retention.MaxAge == nil && now.Before(rest) {
		return term{at: rest, words: rest.UTC().Format(time.RFC3339)}, nil
	}
	if retention.MaxAge == nil {
		return term{expired: true, words: "Expired"}, nil
	}
	age, err := retention.MaxAge.Duration()
	if err != nil {
		return term{words: "Unknown"}, fmt.Errorf("retention: %w", err)
	}
	at := image.Spec.Summary.SnapshotTime.Add(age)
	if rest := restUntil(image); at.Before(rest) {
		at = rest
	}
	if now.Before(at) {
		return term{at: at, words: at.UTC().Format(time.RFC3339)}, nil
	}
	return term{expired: true, words: "Expired"}, nil
}

// importRest is for how long retention leaves an imported image alone. Pins, and policies that keep images longer, are not in the repository: a person who
// builds the cluster anew has that long to bring them back.
const importRest = 24 * time.Hour

// restUntil is when retention begins to look at an image.
func restUntil(image *v1alpha1.BackupImage) time.Time {
	if _, imported := image.Annotations[v1alpha1.AnnotationImported]; !imported {
		return time.Time{}
	}
	return image.CreationTimestamp.Add(importRest)
}

// retentionOf is nil when images are kept for ever.
func retentionOf(image *v1alpha1.BackupImage, policy *v1alpha1.BackupPolicy) *v1alpha1.Retention {
	if policy != nil {
		return policy.Spec.Retention
	}
	if recorded := image.Spec.Retention; recorded != nil && recorded.MaxAge != nil {
		return &v1alpha1.Retention{MaxAge: recorded.MaxAge}
	}
	return nil
}

// newerThan counts the usable images that are newer than this one. What is damaged, expiring or being deleted pushes nothing out.
func newerThan(image *v1alpha1.BackupImage, series []v1alpha1.BackupImage) (n int) {
	for i := range series {
		other := &series[i]
		if other.UID == image.UID || !usable(other) {
			continue
		}
		mine, its := image.Spec.Summary.SnapshotTime.Time, other.Spec.Summary.SnapshotTime.Time
		if its.After(mine) || its.Equal(mine) && other.Name > image.Name {
			n++
		}
	}
	return n
}

func usable(image *v1alpha1.BackupImage) bool {
	return image.DeletionTimestamp.IsZero() && meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ConditionReady)
}
