package runner

import (
	"strings"
	"testing"
)

func TestFilesBesideOthers(t *testing.T) {
	for name, test := range map[string]struct{ path, ending, want string }{
		"a disk":                               {`D:\VMs\vm\disk0.vhdx`, ".vhdx", `D:\VMs\vm\disk0-restored-0123abcd.vhdx`},
		"a disk of another format":             {`D:\VMs\vm\disk0.vhd`, ".vhdx", `D:\VMs\vm\disk0-restored-0123abcd.vhdx`},
		"one that was restored before":         {`D:\VMs\vm\disk0-restored-89ef4567.vhdx`, ".vhdx", `D:\VMs\vm\disk0-restored-0123abcd.vhdx`},
		"one that only sounds like it":         {`D:\VMs\vm\disk0-restored-yesterday.vhdx`, ".vhdx", `D:\VMs\vm\disk0-restored-yesterday-restored-0123abcd.vhdx`},
		"one in the root of a volume":          {`D:\disk0.vhdx`, ".vhdx", `D:\disk0-restored-0123abcd.vhdx`},
		"one of the tree of checkpoints":       {`D:\VMs\vm\disk0_1.AVHDX`, ".AVHDX", `D:\VMs\vm\disk0_1-restored-0123abcd.AVHDX`},
		"one of a machine with dots in a name": {`D:\VMs\vm.a\disk`, ".vhdx", `D:\VMs\vm.a\disk-restored-0123abcd.vhdx`},
	} {
		if got := beside(test.path, "0123abcd-4567", test.ending, map[string]bool{}); got != test.want {
			t.Errorf("%s: %s instead of %s", name, got, test.want)
		}
	}
}

// TestDisksOfOneNameDoNotMeet: a machine may have disks whose names differ only in what a restore replaces.
func TestDisksOfOneNameDoNotMeet(t *testing.T) {
	taken, given := map[string]bool{}, map[string]bool{}
	for _, path := range []string{`D:\VMs\vm\disk.vhd`, `D:\VMs\vm\DISK.vhdx`, `D:\VMs\vm\disk-restored-89ef4567.vhdx`} {
		given[strings.ToLower(beside(path, "0123abcd", ".vhdx", taken))] = true
	}
	if len(given) != 3 {
		t.Errorf("two disks go to one file: %v", given)
	}
}
