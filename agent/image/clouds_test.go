package image_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/test/store"
)

// holdsImages has the keeper make a repository, an agent add two images, and the keeper maintain it.
func holdsImages(t *testing.T, agent, keeper image.Location) {
	t.Helper()
	k := create(t, keeper, image.Options{})
	if facts, err := k.TestStorage(t.Context()); err != nil || slices.Contains(facts.Lacks, "ReadAfterWrite") || slices.Contains(facts.Lacks, "ConditionalCreate") {
		t.Errorf("%+v, %v", facts, err)
	}
	r := create(t, agent, image.Options{AppendOnly: true})
	before := random(1, 3*mib)
	backup(t, r, "one", disk("d0"), allocated(before))
	after := bytes.Clone(before)
	copy(after[mib:], random(2, 1000))
	backup(t, r, "two", increment("d0", "one", extent.Extent{Offset: mib, Length: 1000}), allocated(after))
	if err := k.Delete(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if _, err := k.Maintain(t.Context(), image.MaintainOptions{Full: true}); err != nil {
		t.Error(err)
	}
	mustRestore(t, create(t, agent, image.Options{AppendOnly: true}), "two", "d0", after)
	if err := k.Protect(t.Context(), image.Immutability{Mode: image.Compliance, Period: day}); !errors.Is(err, image.ErrNoLock) {
		t.Errorf("locks: %v", err)
	}
}

func TestAzureHoldsImages(t *testing.T) {
	server := store.StartAzure(t, "images")
	// The name of an account and the domain are joined by a dot, which makes an address of these.
	network, rest, _ := strings.Cut(server.Address, ".")
	with := func(may sas.ContainerPermissions) image.Location {
		return image.Location{Azure: &image.AzureLocation{
			Account: network, Domain: rest, Container: server.Container, Prefix: "tenant-a/", Insecure: true, SASToken: server.Token(may),
		}}
	}
	agent := with(sas.ContainerPermissions{Read: true, Create: true, List: true})
	holdsImages(t, agent, with(sas.ContainerPermissions{Read: true, Create: true, List: true, Write: true, Delete: true}))

	wrong := *agent.Azure
	wrong.SASToken = strings.Replace(wrong.SASToken, "sig=", "sig=AAAA", 1)
	_, err := image.Open(t.Context(), image.Location{Azure: &wrong}, password, image.Options{WorkDir: t.TempDir()})
	if !errors.Is(err, image.ErrAccessDenied) || strings.Contains(err.Error(), wrong.SASToken) || strings.Contains(agent.String(), "sig=") {
		t.Error(err)
	}
}

func TestGoogleCloudHoldsImages(t *testing.T) {
	store.StartGCS(t, "images")
	where := image.Location{GCS: &image.GCSLocation{Bucket: "images", Prefix: "tenant-a/", ServiceAccountKey: []byte(
		`{"type":"authorized_user","client_id":"x","client_secret":"canary","refresh_token":"x"}`)}}
	holdsImages(t, where, where)
	missing := *where.GCS
	missing.Bucket = "other"
	if _, err := image.Open(t.Context(), image.Location{GCS: &missing}, password, image.Options{WorkDir: t.TempDir()}); !errors.Is(err, image.ErrNotUsable) ||
		strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
}
