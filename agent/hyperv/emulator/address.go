package emulator

import (
	"fmt"
	"strings"
)

type controllerKind string

const (
	scsi controllerKind = "SCSI"
	ide  controllerKind = "IDE"
	pmem controllerKind = "PMEM" // persistent memory
)

// slots is how many disks a controller of a kind takes, maxControllers how many of them a VM has.
var (
	slots          = map[controllerKind]int{scsi: 64, ide: 2, pmem: 128}
	maxControllers = map[controllerKind]int{scsi: 4, ide: 2, pmem: 1}
)

// address is where a disk sits: a controller and a slot of it.
type address struct {
	kind       controllerKind
	controller int
	slot       int
}

func (a address) String() string { return fmt.Sprintf("%s %d:%d", a.kind, a.controller, a.slot) }

func parseAddress(text string) (address, error) {
	var a address
	var kind string
	if n, err := fmt.Sscanf(strings.ToUpper(text), "%s %d:%d", &kind, &a.controller, &a.slot); n != 3 || err != nil {
		return address{}, fmt.Errorf("%q is no address such as \"SCSI 0:0\"", text)
	}
	a.kind = controllerKind(kind)
	if a.controller < 0 || a.controller >= maxControllers[a.kind] || a.slot < 0 || a.slot >= slots[a.kind] {
		return address{}, fmt.Errorf("%q does not exist; SCSI goes from 0:0 to 3:63, IDE from 0:0 to 1:1, PMEM from 0:0 to 0:127", text)
	}
	return a, nil
}

// persistent says whether a disk is on the controller for persistent memory, which a VM has only for such disks.
func (d diskConfig) persistent() bool {
	a, err := parseAddress(d.Controller)
	return err == nil && a.kind == pmem
}

// freeAddress is the next address without a disk. A generation 1 VM boots from IDE, so IDE is filled first.
func (c *vmConfig) freeAddress(taken map[address]bool) address {
	kinds := []controllerKind{scsi}
	if c.Generation == 1 {
		kinds = []controllerKind{ide, scsi}
	}
	for _, kind := range kinds {
		for controller := range maxControllers[kind] {
			for slot := range slots[kind] {
				if a := (address{kind, controller, slot}); !taken[a] {
					return a
				}
			}
		}
	}
	return address{} // every slot is taken; check refuses the empty address
}
