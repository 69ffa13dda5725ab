package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/test/store"
)

const (
	imagesPassword = "correct horse"
	vmID           = "4f3c1e0a-0000-4000-8000-000000000001"
)

// pattern is a disk of so many bytes, all of them data.
type pattern struct{ bytes []byte }

func newPattern(n int) pattern {
	p := pattern{make([]byte, n)}
	for i := range p.bytes {
		p.bytes[i] = byte(i>>9) ^ byte(i)
	}
	return p
}

func (p pattern) Size() int64                     { return int64(len(p.bytes)) }
func (p pattern) Data(w extent.Extent) extent.Seq { return extent.Of(w) }
func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(p.bytes).ReadAt(b, off)
}

// stored makes a repository with an image named "one" of virtual machine "web 01".
func stored(t *testing.T, at image.Location, disks map[string]pattern) {
	t.Helper()
	ctx := t.Context()
	r, err := image.OpenOrCreate(ctx, at, imagesPassword, image.Options{WorkDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(ctx)
	w, err := r.Begin(ctx, image.ImageSpec{ID: "one", TaskUID: "one", VM: image.VM{ID: vmID, Name: "web 01", Host: "hv01"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	for key, disk := range disks {
		spec := image.DiskSpec{Key: key, Name: key, LogicalSectorSize: 512, PhysicalSectorSize: 4096}
		if _, err := w.AddDisk(ctx, spec, disk, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Publish(ctx, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// images runs the command and returns what it printed.
func images(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := imagesCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestImagesComeBackWithNothingButARepositoryAndItsPassword(t *testing.T) {
	server := store.StartS3(t)
	server.Bucket("images", false)
	directory := filepath.Join(t.TempDir(), "repository")
	t.Setenv("AWS_ACCESS_KEY_ID", server.Root.ID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.Root.Secret)
	disks := map[string]pattern{"d0": newPattern(3<<20 + 512), "d1": newPattern(1 << 20)}
	for name, c := range map[string]struct {
		at   image.Location
		args []string
	}{
		"from a directory": {image.Location{Filesystem: &image.FilesystemLocation{Path: directory}}, []string{"-r", directory}},
		"from a bucket": {
			image.Location{S3: &image.S3Location{
				Endpoint: server.Endpoint, Bucket: "images", Prefix: "tenant-a/", Region: store.Region, AccessKeyID: server.Root.ID, SecretAccessKey: server.Root.Secret,
			}},
			[]string{"-r", "s3://images/tenant-a/", "--endpoint", server.Endpoint, "--region", store.Region},
		},
	} {
		t.Run(name, func(t *testing.T) {
			stored(t, c.at, disks)
			t.Setenv(envPassword, imagesPassword)
			comesBack(t, c.args, disks)
		})
	}
}

func comesBack(t *testing.T, at []string, disks map[string]pattern) {
	run := func(args ...string) string {
		t.Helper()
		out, err := images(t, append(args, at...)...)
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return out
	}
	if out := run("list"); !strings.Contains(out, "one") || !strings.Contains(out, "web 01") {
		t.Error(out)
	}
	if out := run("list", "--vm", "another"); strings.Contains(out, "web 01") {
		t.Error(out)
	}
	if out := run("show", "latest", "--vm", "WEB 01"); !strings.Contains(out, "3.0 MiB") || !strings.Contains(out, vmID) {
		t.Error(out)
	}
	if out := run("verify", "one"); strings.Count(out, "sound") != len(disks) {
		t.Error(out)
	}
	to := t.TempDir()
	run("restore", "one", "--to", to, "--format", "raw")
	for key, want := range disks {
		if got, err := os.ReadFile(filepath.Join(to, key+".raw")); err != nil || !bytes.Equal(got, want.bytes) {
			t.Errorf("disk %s differs: %v", key, err)
		}
	}
	if out, err := images(t, append([]string{"restore", "one", "--to", to, "--format", "raw"}, at...)...); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second time: %v\n%s", err, out)
	}
}

// Whoever restores after a disaster has no time for riddles.
func TestWhatIsWrongWithARestoreIsSaid(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "repository")
	stored(t, image.Location{Filesystem: &image.FilesystemLocation{Path: directory}}, map[string]pattern{"d0": newPattern(1 << 20)})
	secrets := filepath.Join(t.TempDir(), "secrets.yaml")
	if err := os.WriteFile(secrets, []byte("password: "+imagesPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(wrong, []byte("battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no repository named":     {[]string{"list"}, "--repository"},
		"no repository there":     {[]string{"list", "-r", t.TempDir(), "--credentials-file", secrets}, "no repository"},
		"a wrong password":        {[]string{"list", "-r", directory, "--password-file", wrong}, "password"},
		"no password":             {[]string{"list", "-r", directory}, envPassword},
		"no such image":           {[]string{"show", "two", "-r", directory, "--credentials-file", secrets}, "no such image"},
		"no such disk":            {[]string{"restore", "one", "--disk", "d7", "--to", t.TempDir(), "-r", directory, "--credentials-file", secrets}, "d7"},
		"the latest of nobody":    {[]string{"show", "latest", "-r", directory, "--credentials-file", secrets}, "--vm"},
		"a format of no kind":     {[]string{"restore", "one", "--format", "vmdk", "--to", t.TempDir(), "-r", directory, "--credentials-file", secrets}, "vhdx nor raw"},
		"a store of no kind":      {[]string{"list", "-r", "ftp://host/x", "--credentials-file", secrets}, "gs://"},
		"a bucket without keys":   {[]string{"list", "-r", "s3://bucket/", "--credentials-file", secrets}, "AWS_ACCESS_KEY_ID"},
		"a container of no one's": {[]string{"list", "-r", "azure://container/", "--credentials-file", secrets}, "--account"},
		"a container, no token":   {[]string{"list", "-r", "azure://container/", "--account", "a", "--credentials-file", secrets}, "AZURE_STORAGE_SAS_TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := images(t, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("says %v, want %q\n%s", err, c.want, out)
			}
		})
	}
}

// A damaged chunk fails the restore of its disk by name, and writes nothing that passes for the disk.
func TestARestoreOfADamagedImageNamesTheDisk(t *testing.T) { // I10
	directory := filepath.Join(t.TempDir(), "repository")
	stored(t, image.Location{Filesystem: &image.FilesystemLocation{Path: directory}}, map[string]pattern{"d0": newPattern(4 << 20)})
	t.Setenv(envPassword, imagesPassword)
	packs, err := filepath.Glob(filepath.Join(directory, "p*", "*", "*.f"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	for _, pack := range packs {
		content, err := os.ReadFile(pack)
		if err != nil {
			t.Fatal(err)
		}
		for at := 1000; at < len(content); at += 50_000 {
			content[at] ^= 1
		}
		if err := os.WriteFile(pack, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := t.TempDir()
	if _, err := images(t, "restore", "one", "--to", to, "-r", directory); err == nil || !strings.Contains(err.Error(), `disk "d0"`) {
		t.Errorf("says %v", err)
	}
	if _, err := os.Stat(filepath.Join(to, "d0.vhdx")); err == nil {
		t.Error("a damaged disk looks restored")
	}
	if out, err := images(t, "verify", "one", "-r", directory); err == nil || !strings.Contains(out, "disk d0 (d0): DAMAGED") {
		t.Errorf("%v\n%s", err, out)
	}
}
