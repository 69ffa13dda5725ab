package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

const sample = `package sample

import (
	disks "github.com/Microsoft/go-winio/vhd"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const slotDoSnapshotSet = 38

var (
	kernel  = windows.NewLazySystemDLL("kernel32.dll")
	library = windows.NewLazySystemDLL("virtdisk.dll")
)

func (h *host) callService(service, method string) { wmi.Call(h, service, method, nil) }

func (h *host) work() {
	h.callService(snapshots, "CreateSnapshot")
	h.session.Invoke(ctx, path, "RequestStateChange", nil)
	disks.OpenVirtualDiskWithParameters("x")
	library.NewProc("QueryChangesVirtualDisk").Call(1)
	kernel.NewProc("Sleep")
}
`

func TestCallsAreFoundInCode(t *testing.T) {
	g := NewWithT(t)
	folder := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(folder, "sample.go"), []byte(sample), 0o644)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(folder, "virtdisk.def"), nil, 0o644)).To(Succeed())
	found, err := callsInCode(folder, folder)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(slices.Collect(maps.Keys(found))).To(ConsistOf(call{kindWMI, "CreateSnapshot"}, call{kindWMI, "RequestStateChange"},
		call{kindVSS, "DoSnapshotSet"}, call{kindLibrary, "OpenVirtualDisk"}, call{kindLibrary, "QueryChangesVirtualDisk"}))
}

func TestACallThatCannotBeNamedIsRefused(t *testing.T) {
	for name, code := range map[string]string{
		"a method in a variable":            "package sample\n\nfunc work(what string) { session.Invoke(ctx, path, what, nil) }\n",
		"an unknown function of go-winio's": "package sample\n\nimport \"github.com/Microsoft/go-winio/vhd\"\nfunc work() { vhd.Shrink(disk) }\n",
	} {
		g := NewWithT(t)
		folder := t.TempDir()
		g.Expect(os.WriteFile(filepath.Join(folder, "sample.go"), []byte(code), 0o644)).To(Succeed())
		_, err := callsInCode(folder, folder)
		g.Expect(err).To(MatchError(MatchRegexp("sample.go:[34]")), name)
	}
}

func TestWhatWasNeverExecutedIsMissing(t *testing.T) {
	g := NewWithT(t)
	code, records := t.TempDir(), t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(code, "sample.go"), []byte("package sample\n\nfunc work() { s.Invoke(a, \"One\"); s.Invoke(a, \"Two\"); s.Invoke(a, \"Three\") }\n"), 0o644)).To(Succeed())
	record := func(name, text string) {
		g.Expect(os.WriteFile(filepath.Join(records, name+".json"), []byte(text), 0o644)).To(Succeed())
	}
	record("first", `{"calls": {"Msvm_A.One": {"0": 3}, "Msvm_A.Two": {"4096": 1, "32775": 1}}}`)
	record("second", `{"calls": {"Msvm_B.One": {"32775": 1}}}`)
	var table strings.Builder
	missing, err := compare(&table, code, code, records)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(missing).To(Equal(1), table.String())
	g.Expect(table.String()).To(MatchRegexp(`Three.*MISSING`))
}
