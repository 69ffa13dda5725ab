package preflight_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/recording"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

var update = flag.Bool("update", false, "make the recorded host and its report anew")

// recorded puts a recorder between a preflight and its host.
func recorded(p *preflight.Preflight, r *recording.Recorder) {
	s := &p.Seams
	s.Virtualization = r.Session(wmi.NamespaceVirtualization, s.Virtualization)
	s.CIM = r.Session(wmi.NamespaceCIMv2, s.CIM)
	s.Cluster = r.Session(wmi.NamespaceCluster, s.Cluster)
	s.Disks, s.Files = r.Disks(s.Disks), r.Files(s.Files)
	p.Machine = preflight.Recorded(r, p.Machine)
}

// replayed is a preflight of a recorded host.
func replayed(t *testing.T, file []byte) *preflight.Preflight {
	t.Helper()
	r, err := recording.Load(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return &preflight.Preflight{Machine: preflight.Replayed(r), Agent: "test", Seams: hyperv.Seams{
		Virtualization: r.Session(wmi.NamespaceVirtualization), CIM: r.Session(wmi.NamespaceCIMv2), Cluster: r.Session(wmi.NamespaceCluster),
		Disks: r.Disks(), Files: r.Files(), Clock: hurried{},
	}}
}

func TestAReplayGivesTheReportThatWasRecorded(t *testing.T) {
	g := NewWithT(t)
	var file bytes.Buffer
	r := recording.NewRecorder(&file, "test", hurried{})
	p := of(seams(open(t, oneVM())))
	recorded(p, r)
	want := p.Run(t.Context())
	g.Expect(r.Err()).NotTo(HaveOccurred())
	got := replayed(t, file.Bytes()).Run(t.Context())
	got.Time = want.Time
	g.Expect(got).To(Equal(want))
}

// the recorded host, and the report of it.
const (
	fixture = "testdata/emulated.jsonl"
	golden  = "testdata/emulated.txt"
)

// A recorded host is asked what it was asked when it was recorded. When the agent asks something else since, this test says what, and its fixture
// is made anew with -update; a recording of a real host cannot be, and says then which tests it is too old for.
func TestTheRecordedHostStillAnswers(t *testing.T) {
	g := NewWithT(t)
	if *update {
		makeFixture(t)
	}
	file, err := os.ReadFile(fixture)
	g.Expect(err).NotTo(HaveOccurred())
	r := replayed(t, file).Run(t.Context())
	r.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var text bytes.Buffer
	g.Expect(r.WriteText(&text)).To(Succeed())
	if *update {
		g.Expect(os.WriteFile(golden, text.Bytes(), 0o644)).To(Succeed())
	}
	want, err := os.ReadFile(golden)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text.String()).To(Equal(string(want)))
}

// makeFixture records an emulated host with something of everything.
func makeFixture(t *testing.T) {
	t.Helper()
	files := oneVM()
	files["host.yaml"] = "name: HV07\nosVersion: \"2019\"\njobMillis: 1\n"
	files["web/vm.yaml"] = `
id: 22222222-2222-4222-8222-222222222222
name: web
generation: 1
version: "5.0"
state: off
integrationServices: disabled
checkpoints: standard
disks: [{path: web.vhdx}, {passThrough: 3, sizeBytes: 1048576}]
`
	files["web/web.vhdx"] = ""
	var file, redacted bytes.Buffer
	r := recording.NewRecorder(&file, "test", hurried{})
	p := of(seams(open(t, files)))
	recorded(p, r)
	p.Run(t.Context())
	err := errors.Join(r.Err(), recording.Redact(&file, &redacted), os.MkdirAll("testdata", 0o755), os.WriteFile(fixture, redacted.Bytes(), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}
