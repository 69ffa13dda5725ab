//go:build !windows

package preflight

import (
	"context"
	"runtime"
)

// ThisMachine tells about this process.
func ThisMachine() Machine { return thisMachine{} }

type thisMachine struct{}

func (thisMachine) Facts(context.Context) (Facts, error) {
	return Facts{Platform: runtime.GOOS + "/" + runtime.GOARCH}, nil
}
