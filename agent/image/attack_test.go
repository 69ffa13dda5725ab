package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/test/store"
)

// documentedPolicies gives two users the rights that docs/spec/backuprepository.md says agents and the keeper need.
func documentedPolicies(t *testing.T, server *store.S3, agent, keeper store.Key) {
	t.Helper()
	page, err := os.ReadFile("../../docs/spec/backuprepository.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 3 {
		t.Fatalf("%d policies", len(blocks))
	}
	// The second is for stores that know its condition, which this one does not.
	var statements []any
	for block, user := range map[string]store.Key{blocks[0][1]: agent, blocks[2][1]: keeper} {
		var policy struct{ Statement []map[string]any }
		block = strings.NewReplacer("backups/hyperkeep/", "images/tenant-a/", "backups", "images").Replace(block)
		if err := json.Unmarshal([]byte(block), &policy); err != nil {
			t.Fatal(err)
		}
		for _, statement := range policy.Statement {
			statement["Principal"] = map[string]any{"AWS": []string{user.ID}}
			statement["Sid"] = statement["Sid"].(string) + user.ID
			statements = append(statements, statement)
		}
	}
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(err)
	}
	server.Policy("images", string(policy))
}

// site is a repository in a plain bucket, with two images, and the keys to it.
type site struct {
	server        *store.S3
	agent, keeper store.Key
	want          map[string][]byte
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{server: store.StartS3(t)}
	s.server.Bucket("images", false)
	s.agent, s.keeper = s.server.User("AGENT"), s.server.User("KEEPER")
	documentedPolicies(t, s.server, s.agent, s.keeper)
	create(t, s.at(s.keeper), image.Options{})
	r := create(t, s.at(s.agent), image.Options{AppendOnly: true})
	before := random(1, 3*mib)
	backup(t, r, "one", disk("d0"), allocated(before))
	after := bytes.Clone(before)
	copy(after[mib:], random(2, 1000))
	backup(t, r, "two", increment("d0", "one", extent.Extent{Offset: mib, Length: 1000}), allocated(after))
	s.want = map[string][]byte{"one": before, "two": after}
	return s
}

func (s *site) at(key store.Key) image.Location {
	where := at(s.server, key)
	return image.Location{S3: &where}
}

// attack does with the agent's key and the password all that stock kopia and a client of the store can do to delete.
func (s *site) attack(t *testing.T) *stockKopia {
	t.Helper()
	k := connect(t, s.at(s.agent))
	var ids []string
	for _, found := range regexp.MustCompile(`"id":"([0-9a-f]+)"`).FindAllStringSubmatch(k.run("snapshot", "list", "--all", "--json"), -1) {
		ids = append(ids, found[1])
	}
	if len(ids) != 2 {
		t.Fatalf("snapshots: %v", ids)
	}
	// Marks of deletion are written, then kopia fails on the marker of its session, which it tries to delete for longer than we wait.
	contents := strings.Fields(k.run("content", "list"))
	for _, args := range [][]string{
		append([]string{"snapshot", "delete", "--delete"}, ids...),
		append([]string{"content", "delete", "--dangerous-commands=enabled"}, contents...),
		{"maintenance", "run", "--full", "--safety=none"},
	} {
		out, err := k.try(4*time.Second, args...)
		if err == nil {
			t.Errorf("kopia %v succeeded:\n%s", args, out)
		}
	}
	if left := k.run("snapshot", "list", "--all", "--json") + k.run("content", "list"); strings.Contains(left, ids[0]) || strings.Contains(left, contents[0]) {
		t.Errorf("the attack left no mark:\n%s", left)
	}
	ctx, client := context.Background(), s.server.Client(s.agent)
	for _, object := range objects(t, s.server, "") {
		if err := client.RemoveObject(ctx, "images", object, minio.RemoveObjectOptions{}); err == nil {
			t.Errorf("%s was deleted", object)
		}
	}
	for _, forged := range []string{"kopia.repository", "kopia.blobcfg", "kopia.maintenance", "xr0_1000-s0", "xs0_0", "xw0", "xe1"} {
		junk := bytes.NewReader([]byte("junk"))
		if _, err := client.PutObject(ctx, "images", "tenant-a/"+forged, junk, junk.Size(), minio.PutObjectOptions{SendContentMd5: true}); err == nil {
			t.Errorf("%s was written", forged)
		}
	}
	return k
}

// I2, T1, T3: who takes over an agent has its key and the password. Marks of deletion are all that can be left, and the keeper, who deletes and collects
// all that it believes to be garbage at once, as it would after the grace, does not believe them.
func TestAnAgentsKeyDestroysNoImage(t *testing.T) {
	if testing.Short() {
		t.Skip("linking kopia's command line takes a while")
	}
	s := newSite(t)
	k := s.attack(t)
	var c clock
	keeper := create(t, s.at(s.keeper), image.Options{Now: c.now})
	collect(t, keeper, &c)
	r := create(t, s.at(s.agent), image.Options{AppendOnly: true})
	for id, want := range s.want {
		mustRestore(t, r, id, "d0", want)
		if _, err := r.Confirm(t.Context(), id, spec(id).VM.ID); err != nil {
			t.Error(err)
		}
	}
	if list := k.run("snapshot", "list", "--all"); strings.Count(list, "files:") != 2 {
		t.Errorf("stock kopia lists\n%s", list)
	}
	after := bytes.Clone(s.want["two"])
	copy(after, random(3, 512))
	backup(t, r, "three", increment("d0", "two", extent.Extent{Length: 512}), allocated(after))
}

// try runs kopia for so long at most.
func (k *stockKopia) try(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.exe, args...)
	cmd.Env = k.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestMatchRefusesWhatWasPutThereUnderTheSameID: whoever has the password can publish an image of any id.
func TestMatchRefusesWhatWasPutThereUnderTheSameID(t *testing.T) {
	const victim, other = "4f3c1e0a-0000-4000-8000-000000000001", "4f3c1e0a-0000-4000-8000-000000000666"
	publish := func(r *image.Repository, vmID, id string, content []byte) image.Manifest {
		s := spec(id)
		s.VM.ID = vmID
		w, err := r.Begin(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close(t.Context())
		if _, err := w.AddDisk(t.Context(), disk("d0"), allocated(content), nil); err != nil {
			t.Fatal(err)
		}
		m, err := w.Publish(t.Context(), open)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	r := create(t, directory(t), image.Options{})
	publish(r, other, "both", random(1, mib)) // it is older, too
	sound := publish(r, victim, "both", random(2, mib))
	publish(r, other, "gone", random(1, mib))
	cases := map[string]struct {
		id, vmID, digest string
		want             error
	}{
		"the recorded one, beside another":           {"both", victim, sound.Digest, nil},
		"the recorded one, without its digest":       {"both", victim, "", nil},
		"another one in its place":                   {"both", victim, strings.Repeat("0", 64), image.ErrImageMismatch},
		"another machine's while its own is missing": {"gone", victim, "", image.ErrImageMismatch},
		"none":                   {"none", victim, "", image.ErrImageNotFound},
		"no machine is asked of": {"both", "", "", image.ErrImageNotFound},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			img, err := r.Match(t.Context(), c.id, c.vmID, c.digest)
			if !errors.Is(err, c.want) || err == nil && img.Manifest().Digest != sound.Digest {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
