package image_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// stockKopia is the command line of the version that go.mod names, connected to a repository.
type stockKopia struct {
	t   *testing.T
	exe string
	env []string
}

func connect(t *testing.T, where image.Location) *stockKopia {
	t.Helper()
	dir := t.TempDir()
	exe := filepath.Join(dir, "kopia")
	if out, err := exec.Command("go", "build", "-o", exe, "github.com/kopia/kopia").CombinedOutput(); err != nil {
		t.Fatalf("build kopia: %v\n%s", err, out)
	}
	k := &stockKopia{t: t, exe: exe, env: append(os.Environ(),
		"KOPIA_PASSWORD="+password, "KOPIA_CONFIG_PATH="+filepath.Join(dir, "kopia.config"), "KOPIA_CACHE_DIRECTORY="+filepath.Join(dir, "cache"),
		"KOPIA_LOG_DIR="+filepath.Join(dir, "logs"), "KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_DANGEROUS_COMMANDS=enabled", "HOME="+dir)}
	if at := where.S3; at != nil { // as who owns maintenance
		k.run("repository", "connect", "s3", "--bucket", at.Bucket, "--prefix", at.Prefix, "--endpoint", strings.TrimPrefix(at.Endpoint, "http://"),
			"--disable-tls", "--region", at.Region, "--access-key", at.AccessKeyID, "--secret-access-key", at.SecretAccessKey,
			"--override-username", "hyperkeep", "--override-hostname", "repository")
		return k
	}
	k.run("repository", "connect", "filesystem", "--path", where.Filesystem.Path)
	return k
}

func (k *stockKopia) run(args ...string) string {
	k.t.Helper()
	cmd := exec.Command(k.exe, args...)
	cmd.Env = k.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.t.Fatalf("kopia %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Nobody is locked in: stock kopia lists, verifies and restores images, and its maintenance does not hurt them.
func TestStockKopiaReadsImages(t *testing.T) {
	if testing.Short() {
		t.Skip("linking kopia's command line takes a while")
	}
	ctx := context.Background()
	where := directory(t)
	r := create(t, where, image.Options{})
	before := &memory{bytes: make([]byte, 200*mib+1234)}
	before.data = extent.List{{Offset: mib / 2, Length: 70 * mib}, {Offset: 150 * mib, Length: 50*mib + 1234}}
	for _, e := range before.data {
		copy(before.bytes[e.Offset:e.End()], random(uint64(e.Offset), int(e.Length)))
	}
	backup(t, r, "one", disk("system"), before)
	after := &memory{bytes: bytes.Clone(before.bytes), data: before.data}
	change := extent.Extent{Offset: 60*mib + 77, Length: 6 * mib}
	copy(after.bytes[change.Offset:change.End()], random(9, int(change.Length)))
	trim := extent.Extent{Offset: 190 * mib, Length: 5 * mib}
	clear(after.bytes[trim.Offset:trim.End()])
	after.data = after.data.Subtract(extent.List{trim})
	backup(t, r, "two", increment("system", "one", change, trim), after)
	split := &memory{bytes: bytes.Clone(after.bytes), data: after.data}
	again := extent.List{{Offset: 66*mib + 70*kib, Length: 512}, {Offset: 180 * mib, Length: 4 * kib}, {Offset: 200*mib + 100, Length: 1}}
	for _, e := range again {
		copy(split.bytes[e.Offset:e.End()], random(11, int(e.Length)))
	}
	if d := backup(t, r, "three", increment("system", "two", again...), split).Disks[0]; d.ReadBytes >= 2*mib {
		t.Errorf("leaves were not split: %+v", d)
	}

	k := connect(t, where)
	list := k.run("snapshot", "list", "--all")
	if !strings.Contains(list, "hyperkeep@hv01:/web 01") {
		t.Errorf("snapshot list: %s", list)
	}
	refs, err := r.Images(ctx, image.ImageFilter{})
	if err != nil || len(refs) != 3 {
		t.Fatalf("%v, %v", refs, err)
	}
	k.reads(map[string][]byte{"one": before.bytes, "two": after.bytes, "three": split.bytes})

	// After an image was deleted, and what it alone had was freed by collections that lie as far apart as they have to.
	if freed := image.CollectWithCare(t, where, password, "one"); freed < 6*mib {
		t.Errorf("%d bytes were freed", freed)
	}
	k.reads(map[string][]byte{"two": after.bytes, "three": split.bytes})
	reopened := create(t, where, image.Options{})
	mustRestore(t, reopened, "two", "system", after.bytes)
	mustRestore(t, reopened, "three", "system", split.bytes)
}

// reads verifies everything, and restores the disk of some images.
func (k *stockKopia) reads(disks map[string][]byte) {
	t := k.t
	t.Helper()
	k.run("snapshot", "verify", "--verify-files-percent=100")
	for id, want := range disks {
		found := k.run("snapshot", "list", "--all", "--tags", "hyperkeep-image:"+id, "--json")
		_, rest, _ := strings.Cut(found, `"id":"`)
		snapshot, _, _ := strings.Cut(rest, `"`)
		target := filepath.Join(t.TempDir(), "restored")
		k.run("restore", snapshot, target, "--write-sparse-files")
		got, err := os.ReadFile(filepath.Join(target, "disks", "system.raw"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("stock kopia restores image %s differently: %v", id, err)
		}
		if document, err := os.ReadFile(filepath.Join(target, "manifest.json")); err != nil || !bytes.Contains(document, []byte(`"id": "`+id+`"`)) {
			t.Errorf("manifest.json of %s: %v\n%s", id, err, document)
		}
	}
	k.run("content", "verify", "--full")
}
