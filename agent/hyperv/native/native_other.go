//go:build !windows

package native

import (
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Open says that Hyper-V is elsewhere.
func Open(wmi.Clock) (hyperv.Seams, func() error, error) {
	return hyperv.Seams{}, nil, errors.New("this machine has no Hyper-V: name the socket of an emulated host with --emulated")
}
