// Package wmitest is the contract of a wmi.Session: what every one does, whoever answers it. It is run against the emulated host in process, through its
// socket, and from Windows through COM.
package wmitest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Host is the host that the contract is checked against. Its folder was filled by Prepare.
type Host struct {
	// Open returns a session that connects at its first call. The suite closes it.
	Open func(t *testing.T, namespace string) wmi.Session
	// Restart lets the host's WMI service start anew.
	Restart func(t *testing.T)
	// Deny lets the host refuse all calls for want of rights, or no longer.
	Deny func(t *testing.T, denied bool)
	// FailProperty lets the next read of a property fail. It is nil where instances arrive as a whole.
	FailProperty func(t *testing.T, class, property string)
}

// vmName has what is hard to quote and to encode.
const vmName = `büro "x" \ 漢字 🙂 'y'`

// passThrough is the number of a disk: as a uint32 it is so large that automation delivers it as a negative number.
const passThrough = 4294967040

const vmDefinition = `
name: 'büro "x" \ 漢字 🙂 ''y'''
state: running
generation: 2
version: "9.0"
notes: [first, 'second "<&>']
memoryMiB: 2048
dynamicMemory: {minimumMiB: 512, maximumMiB: 4096}
processors: 2
secureBoot: true
replica: primary
networkAdapters:
- {name: front, switch: LAN, mac: 00155DAA0001}
- {}
disks:
- path: system.vhdx
- passThrough: 4294967040
  sizeBytes: 1073741824
  controller: SCSI 1:5
`

// The second VM is off, so that its devices can be changed.
const (
	offName       = "off"
	offDefinition = "name: off\nstate: off\ngeneration: 2\n"
)

// Prepare fills the folder of an emulated host before it is opened.
func Prepare(t *testing.T, dir string) {
	t.Helper()
	for name, definition := range map[string]string{"vm": vmDefinition, "off": offDefinition} {
		folder := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte(definition), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "vm", "system.vhdx"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = vhdx.Create(f, vhdx.Options{VirtualSize: 64 << 20})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
