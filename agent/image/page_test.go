package image_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// ids reads the whole catalog in pages of a size.
func ids(t *testing.T, r *image.Repository, limit int) (found []string, damaged int) {
	t.Helper()
	for after := ""; ; {
		page, err := r.Page(context.Background(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Images)+page.Damaged > limit {
			t.Fatalf("%d images on a page of %d", len(page.Images), limit)
		}
		for _, listed := range page.Images {
			found = append(found, listed.Manifest.ID)
		}
		damaged += page.Damaged
		if after = page.Next; after == "" {
			return found, damaged
		}
	}
}

func TestCatalogIsReadPageByPage(t *testing.T) {
	ctx := context.Background()
	where := directory(t)
	r := create(t, where, image.Options{})
	if page, err := r.Page(ctx, "", 3); err != nil || len(page.Images) > 0 || page.Next != "" {
		t.Fatalf("an empty repository: %+v, %v", page, err)
	}
	content := random(1, mib)
	var all []string
	for i := range 7 {
		id := fmt.Sprintf("image-%d", i)
		backup(t, r, id, disk("d0"), allocated(content))
		all = append(all, id)
	}
	first, _ := ids(t, r, 3)
	again, _ := ids(t, create(t, where, image.Options{}), 2)
	if !slices.Equal(first, again) {
		t.Errorf("the order differs: %v, %v", first, again)
	}
	if sorted := slices.Sorted(slices.Values(first)); !slices.Equal(sorted, all) {
		t.Errorf("%v are not %v", sorted, all)
	}
	page, err := r.Page(ctx, "", 3)
	if err != nil || page.Total != 7 {
		t.Fatalf("%+v, %v", page, err)
	}
	// The image that the page ended with goes: the next page is the same.
	if err := r.Delete(ctx, page.Images[2].Manifest.ID); err != nil {
		t.Fatal(err)
	}
	next, err := r.Page(ctx, page.Next, 3)
	if err != nil || len(next.Images) != 3 || next.Images[0].Manifest.ID != first[3] {
		t.Errorf("after a deletion: %+v, %v", next, err)
	}
	if left, _ := ids(t, r, 100); len(left) != 6 || slices.Contains(left, page.Images[2].Manifest.ID) {
		t.Errorf("a deleted image is in the catalog: %v", left)
	}
}

func TestDamagedMarkerHidesNoOtherImage(t *testing.T) {
	where := directory(t)
	r := create(t, where, image.Options{})
	for _, id := range []string{"one", "two"} {
		backup(t, r, id, disk("d0"), allocated(random(1, mib)))
	}
	flip(t, blobs(t, where, "hyperkeep-image-")[0], 20)
	if found, damaged := ids(t, create(t, where, image.Options{}), 1); len(found) != 1 || damaged != 1 {
		t.Errorf("%v, %d damaged", found, damaged)
	}
}
