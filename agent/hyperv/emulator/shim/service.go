package shim

import (
	"context"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// process is the side of a service that one process which loaded its DLL sees.
type process interface {
	// call runs a function; several may run at once. ctx ends when the caller is gone. status is what the function returns to its caller, results what it
	// gives back besides.
	call(ctx context.Context, function string, args []any) (status uint32, results []any)
	// exit gives back what the process still held. No call runs any more.
	exit()
}

// starter begins a service for one more process.
type starter func(host *emulator.Host) process

// services are the services by the name in the hello.
var services = map[string]starter{
	"control": newControl,
	"disk":    newDisks,
	"vss":     newVSSProcess,
	"wmi":     newAutomation,
}
