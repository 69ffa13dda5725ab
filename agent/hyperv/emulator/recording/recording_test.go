package recording_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/recording"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

const paymentsID = "11111111-1111-4111-8111-111111111111"

// site is the estate of somebody whose names must not get out.
var site = map[string]string{
	"host.yaml": "name: CONTOSO7\njobMillis: 1\nswitches: [Treasury]\n",
	"payments/vm.yaml": `
id: ` + paymentsID + `
name: Payments
notes: [call Rosalind at 10.20.30.40]
disks: [{path: ledger.vhdx}]
networkAdapters: [{name: uplink, switch: Treasury, mac: 0015DEADBEEF}]
`,
}

// open runs an emulated host with one VM.
func open(t *testing.T) *emulator.Host {
	t.Helper()
	dir := t.TempDir()
	for name, text := range site {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "payments", "ledger.vhdx"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = vhdx.Create(f, vhdx.Options{VirtualSize: 16 << 20, BlockSize: 1 << 20})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	h, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

type realClock struct{}

func (realClock) Now() time.Time                         { return time.Now() }
func (realClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// seams are what a hyperv.Host is made of, wherever they come from.
func seams(session func(string) wmi.Session, disks virtdisk.Service, files hostfs.FS) *hyperv.Host {
	return hyperv.New(hyperv.Seams{
		Virtualization: session(wmi.NamespaceVirtualization), CIM: session(wmi.NamespaceCIMv2), Cluster: session(wmi.NamespaceCluster),
		Disks: disks, Files: files, Clock: realClock{},
	})
}

// record takes the inventory of a host, and the recording of it.
func record(t *testing.T, h *emulator.Host) (hyperv.Inventory, []byte) {
	t.Helper()
	var file bytes.Buffer
	r := recording.NewRecorder(&file, "test", realClock{})
	session := func(namespace string) wmi.Session { return r.Session(namespace, h.Session(namespace)) }
	inventory, err := seams(session, r.Disks(h.Disks()), r.Files(h.Files())).Inventory(t.Context())
	if err := errors.Join(err, r.Err()); err != nil {
		t.Fatal(err)
	}
	return inventory, file.Bytes()
}

func load(t *testing.T, file []byte) *recording.Recording {
	t.Helper()
	rec, err := recording.Load(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func replayed(rec *recording.Recording) *hyperv.Host {
	return seams(rec.Session, rec.Disks(), rec.Files())
}

func TestAReplayGivesTheInventoryThatWasRecorded(t *testing.T) {
	g := NewWithT(t)
	want, file := record(t, open(t))
	g.Expect(want.VMs).To(HaveLen(1))
	host := replayed(load(t, file))
	for range 2 {
		got, err := host.Inventory(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(got).To(Equal(want))
	}
}

func TestAReplayKnowsOnlyWhatWasRecorded(t *testing.T) {
	g := NewWithT(t)
	_, file := record(t, open(t))
	rec := load(t, file)
	_, err := rec.Session(wmi.NamespaceVirtualization).Query(t.Context(), "SELECT * FROM Msvm_Never")
	g.Expect(err).To(MatchError(recording.ErrNotRecorded))
	g.Expect(err).To(MatchError(And(ContainSubstring("wmi.query"), ContainSubstring("Msvm_Never"))), "the error names the call")
	_, err = rec.Session(wmi.NamespaceVirtualization).Invoke(t.Context(), "x", "CreateSnapshot", wmi.Params{"SnapshotType": int64(2)})
	g.Expect(err).To(MatchError(And(ContainSubstring("CreateSnapshot"), ContainSubstring("SnapshotType"))))
	_, err = rec.Disks().Info(t.Context(), `D:\other.vhdx`)
	g.Expect(err).To(MatchError(recording.ErrNotRecorded))
	_, err = rec.Files().Open(t.Context(), `D:\VMs\payments\ledger.vhdx`)
	g.Expect(err).To(MatchError(recording.ErrNotRecorded), "what is in files is never recorded")
}

func TestAReplayKeepsErrorsAndTheOrderOfAnswers(t *testing.T) {
	g := NewWithT(t)
	h := open(t)
	var file bytes.Buffer
	r := recording.NewRecorder(&file, "test", realClock{})
	virt := r.Session(wmi.NamespaceVirtualization, h.Session(wmi.NamespaceVirtualization))
	_, err := virt.Get(t.Context(), `Msvm_ComputerSystem.Name="x"`)
	g.Expect(err).To(MatchError(wmi.ErrNotFound))
	_, err = r.Session(wmi.NamespaceCluster, h.Session(`root\absent`)).Query(t.Context(), "SELECT * FROM MSCluster_Cluster")
	g.Expect(err).To(MatchError(wmi.ErrInvalidNamespace))
	n := 0
	for range 2 {
		_, _ = recording.Note(r, "count", func() (int, error) { n++; return n, nil })
	}
	_, err = r.Files(h.Files()).ReadDir(t.Context(), `D:\VMs\payments`)
	g.Expect(err).NotTo(HaveOccurred())

	rec := load(t, file.Bytes())
	_, err = rec.Session(wmi.NamespaceVirtualization).Get(t.Context(), `Msvm_ComputerSystem.Name="x"`)
	g.Expect(err).To(MatchError(wmi.ErrNotFound))
	_, err = rec.Session(wmi.NamespaceCluster).Query(t.Context(), "SELECT * FROM MSCluster_Cluster")
	g.Expect(err).To(MatchError(wmi.ErrInvalidNamespace))
	for _, want := range []int{1, 2, 2} {
		got, err := recording.Noted[int](rec, "count")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(got).To(Equal(want))
	}
	found, err := rec.Files().ReadDir(t.Context(), `D:\VMs\payments`)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(ContainElement(And(HaveField("Name()", "ledger.vhdx"), HaveField("IsDir()", false))))
}

func TestRedactionLeavesNoNameAndReplaysAllTheSame(t *testing.T) {
	g := NewWithT(t)
	want, file := record(t, open(t))
	var redacted bytes.Buffer
	g.Expect(recording.Redact(bytes.NewReader(file), &redacted)).To(Succeed())
	for _, word := range []string{"contoso7", "payments", "ledger", "treasury", "rosalind", "10.20.30.40", "deadbeef", "uplink", paymentsID, want.VMs[0].Disks[0].DiskID} {
		g.Expect(strings.ToLower(string(file))).To(ContainSubstring(strings.ToLower(word)))
		g.Expect(strings.ToLower(redacted.String())).NotTo(ContainSubstring(strings.ToLower(word)))
	}
	rec := load(t, redacted.Bytes())
	g.Expect(rec.Header.Redacted).To(BeTrue())
	got, err := replayed(rec).Inventory(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.VMs).To(HaveLen(1))
	vm, original := got.VMs[0], want.VMs[0]
	g.Expect([]any{vm.State, vm.Generation, vm.Concerns, vm.Disks[0].Key, vm.Disks[0].VirtualSize}).
		To(Equal([]any{original.State, original.Generation, original.Concerns, original.Disks[0].Key, original.Disks[0].VirtualSize}))
	g.Expect(vm.Networks[0].Switch).NotTo(BeEmpty(), "references still lead to what they name")
	g.Expect(vm.Disks[0].Path).To(MatchRegexp(`^D:\\VMs\\name\d+\\part\d+\.vhdx$`))

	again, err := replayed(rec).VM(t.Context(), vm.ID)
	g.Expect(err).To(MatchError(recording.ErrNotRecorded), "%v", again)
}

func TestAnotherFileIsNoRecording(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         "",
		"another program": `{"format":"something"}` + "\n",
		"a later version": `{"format":"hyperkeep-recording","version":99}` + "\n",
		"cut off":         `{"format":"hyperkeep-recording","version":1}` + "\n" + `{"call":"wmi.qu`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := recording.Load(strings.NewReader(text))
			NewWithT(t).Expect(err).To(MatchError(recording.ErrFormat))
		})
	}
}

func TestComparingListsWhatTheEmulatedHostDoesNotKnow(t *testing.T) {
	g := NewWithT(t)
	h := open(t)
	var file bytes.Buffer
	r := recording.NewRecorder(&file, "test", realClock{})
	virt := r.Session(wmi.NamespaceVirtualization, h.Session(wmi.NamespaceVirtualization))
	_, err := virt.Query(t.Context(), "SELECT * FROM Msvm_ComputerSystem")
	g.Expect(err).NotTo(HaveOccurred())
	_, err = virt.(wmi.Describer).Describe(t.Context(), "Msvm_VirtualSystemSnapshotService")
	g.Expect(err).NotTo(HaveOccurred())
	same, err := recording.Compare(load(t, file.Bytes()))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(same).To(BeEmpty(), "the emulated host does not differ from itself")

	other := strings.NewReplacer(
		`"NumberOfNumaNodes":null`, `"NumberOfNumaNodes":"two","FromTheFuture":null`,
		`"SnapshotType":"uint16"`, `"SnapshotType":"uint32","Extra":"string"`,
		`"DestroySnapshotTree":`, `"Unheard":`,
	).Replace(file.String())
	got, err := recording.Compare(load(t, []byte(other)))
	g.Expect(err).NotTo(HaveOccurred())
	var lines []string
	for _, d := range got {
		lines = append(lines, d.String())
	}
	g.Expect(lines).To(Equal([]string{
		"Msvm_ComputerSystem FromTheFuture: the host has NULL, the emulated host nothing",
		"Msvm_ComputerSystem NumberOfNumaNodes: the host has string, the emulated host uint16",
		"Msvm_VirtualSystemSnapshotService CreateSnapshot.Extra: the host has string, the emulated host nothing",
		"Msvm_VirtualSystemSnapshotService CreateSnapshot.SnapshotType: the host has uint32, the emulated host uint16",
		"Msvm_VirtualSystemSnapshotService DestroySnapshotTree: the host has nothing, the emulated host the method",
	}))
}

// brokenFile takes the header and nothing more.
type brokenFile struct{ lines int }

func (b *brokenFile) Write(p []byte) (int, error) {
	if b.lines++; b.lines > 1 {
		return 0, os.ErrClosed
	}
	return len(p), nil
}

func TestARecordingThatCannotBeWrittenDisturbsNoCall(t *testing.T) {
	g := NewWithT(t)
	h := open(t)
	r := recording.NewRecorder(&brokenFile{}, "test", realClock{})
	found, err := r.Session(wmi.NamespaceVirtualization, h.Session(wmi.NamespaceVirtualization)).Query(t.Context(), "SELECT * FROM Msvm_ComputerSystem")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).NotTo(BeEmpty())
	g.Expect(r.Err()).To(MatchError(os.ErrClosed))
}
