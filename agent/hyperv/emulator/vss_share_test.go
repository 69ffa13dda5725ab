package emulator

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// A selected component of which the set holds only a part is refused by its writer: VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT (vswriter.h).
func TestWriterRefusesASetThatLacksAVolumeOfTheMachine(t *testing.T) {
	dir := tempDir(t)
	makeVHDX(t, filepath.Join(dir, "crm", "system.vhdx"))
	write(t, filepath.Join(dir, "crm", "vm.yaml"), "state: running\ndisks:\n- path: system.vhdx\n- path: '\\\\nas\\vms\\data.vhdx'\n")
	h := startHost(t, dir)
	for name, c := range map[string]struct {
		uninvolved bool
		want       error
	}{"that takes part": {false, vss.WriterInconsistent}, "that is left out": {true, nil}} {
		t.Run(name, func(t *testing.T) {
			r, err := h.VSS().Open(t.Context(), vss.Full)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
			offered, err := r.Components(t.Context())
			if err != nil || len(offered) != 1 {
				t.Fatalf("%v, %v", offered, err)
			}
			if !slices.Contains(offered[0].Files, vss.FileSpec{Path: `\\nas\vms`, Pattern: "data.vhdx"}) {
				t.Fatalf("the disk on the share is not listed: %+v", offered[0].Files)
			}
			if _, err := r.Begin(t.Context(), vss.Request{Component: offered[0], Uninvolved: c.uninvolved, Volumes: []string{`D:\`}}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Snapshot(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%v, not %v", err, c.want)
			}
		})
	}
}
