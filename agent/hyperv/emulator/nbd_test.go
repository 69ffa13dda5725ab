package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNBDToolsAreGuests(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	_, w := openHost(t, dir)
	uri := w.socket("crm", "system.vhdx")

	var info struct {
		Exports []struct {
			Name  string `json:"export-name"`
			Size  int64  `json:"export-size"`
			Flush bool   `json:"can_flush"`
			FUA   bool   `json:"can_fua"`
			Multi bool   `json:"can_multi_conn"`
			Trim  bool   `json:"can_trim"`
			Zero  bool   `json:"can_zero"`
		} `json:"exports"`
	}
	if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--list", "--json", uri)), &info); err != nil {
		t.Fatal(err)
	}
	if len(info.Exports) != 1 {
		t.Fatalf("%d exports", len(info.Exports))
	}
	if e := info.Exports[0]; e.Name != "system.vhdx" || e.Size != 64<<20 || !e.Flush || !e.FUA || !e.Multi || !e.Trim || !e.Zero {
		t.Errorf("the export is %+v", e)
	}
	if out := tool(t, "nbdinfo", "--size", strings.Replace(uri, "nbd+unix:///", "nbd+unix:///system.vhdx", 1)); strings.TrimSpace(out) != "67108864" {
		t.Errorf("by its name the export has %s bytes", out)
	}

	random := filepath.Join(tempDir(t), "random.raw")
	content := bytes.Repeat([]byte("0123456789abcdef"), 64<<20/16)
	if err := os.WriteFile(random, content, 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "nbdcopy", "--connections=4", "--flush", random, uri)
	back := filepath.Join(filepath.Dir(random), "back.raw")
	tool(t, "nbdcopy", uri, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
		t.Errorf("nbdcopy reads something else: %v", err)
	}
	tool(t, "qemu-io", "-f", "raw", "-c", "write -z 1M 2M", "-c", "discard 8M 8M", "-c", "write -f -P 5 20M 64k", "-c", "read -P 0 1M 2M", "-c", "read -P 5 20M 64k", uri)
	if out := tool(t, "qemu-img", "info", "-f", "raw", uri); !strings.Contains(out, "64 MiB") {
		t.Errorf("qemu-img sees %s", out)
	}
}

func TestNBDRefusesWhatLiesOutside(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	openHost(t, dir)
	g, err := dialGuest(filepath.Join(dir, "crm", "system.vhdx.nbd"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if g.size != 64<<20 {
		t.Errorf("the disk has %d bytes", g.size)
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a write behind the end":    {g.write(make([]byte, 2), 64<<20-1), "error 28"},
		"a read over the end":       {g.command(nbdRead, 64<<20-1, 2, nil, nil), "error 22"},
		"a read that is too large":  {g.command(nbdRead, 0, 33<<20, nil, nil), "error 22"},
		"an unknown command":        {g.command(99, 0, 0, nil, nil), "error 22"},
		"a negative offset":         {g.zero(-1, 1), "error 28"},
		"zeroes behind the end":     {g.zero(64<<20, 1), "error 28"},
		"a trim behind the end":     {g.command(nbdTrim, 64<<20, 1, nil, nil), "error 22"},
		"nothing at the end is all": {g.command(nbdTrim, 64<<20, 0, nil, nil), ""},
	} {
		if got := fmt.Sprint(c.err); c.want == "" && c.err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v, not %s", name, c.err, c.want)
		}
	}
	p := make([]byte, 512)
	if err := g.read(p, 0); err != nil {
		t.Errorf("the connection is broken: %v", err)
	}
	_, err = g.conn.Write(make([]byte, 28)) // no request at all
	if err != nil {
		t.Fatal(err)
	}
	if n, err := g.conn.Read(p); err == nil {
		t.Errorf("garbage was answered with %d bytes", n)
	}
}

func TestGarbageOnTheSocketHarmsNobody(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	_, w := openHost(t, dir)
	for _, garbage := range []string{"", "x", strings.Repeat("\xff", 100), "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff", "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x06\xff\xff\xff\xff\x00\x00"} {
		conn, err := net.Dial("unix", filepath.Join(dir, "crm", "system.vhdx.nbd"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(garbage)); err != nil {
			t.Log(err) // hung up already
		}
		conn.Close()
	}
	tool(t, "qemu-io", "-f", "raw", "-c", "write 0 4k", w.socket("crm", "system.vhdx"))
}

// TestAcknowledgedWritesSurviveAKill is the promise to guests: what was answered is there after kill -9, flushed or not.
func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	p := startProcess(t, dir)
	socket := filepath.Join(dir, "crm", "system.vhdx.nbd")
	g, err := dialGuest(socket)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, 3<<20)
	if err := g.write(want, 512); err != nil {
		t.Fatal(err)
	}
	p.kill()
	g.close()
	startProcess(t, dir)
	if g, err = dialGuest(socket); err != nil {
		t.Fatal(err)
	}
	defer g.close()
	got := make([]byte, len(want))
	if err := g.read(got, 512); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the write is lost: %v", err)
	}
	if err := g.flush(); err != nil {
		t.Error(err)
	}
}

func TestSocketInADeepFolder(t *testing.T) {
	dir := filepath.Join(tempDir(t), strings.Repeat("deep/", 25))
	addVM(t, dir, "crm", "")
	openHost(t, dir)
	folder, err := os.Open(filepath.Join(dir, "crm"))
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	g, err := dialGuest(fmt.Sprintf("/proc/self/fd/%d/system.vhdx.nbd", folder.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if err := g.flush(); err != nil {
		t.Error(err)
	}
}
