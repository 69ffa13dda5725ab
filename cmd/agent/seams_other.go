//go:build !windows

package main

import (
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// ownSeams says that Hyper-V is elsewhere.
func ownSeams() (hyperv.Seams, func() error, error) {
	return hyperv.Seams{}, nil, errors.New("this machine has no Hyper-V: name the socket of an emulated host with --emulated")
}
