//go:build !windows

package child

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// unsupported refuses.
type unsupported struct{}

func (unsupported) Open(context.Context, vss.BackupType) (vss.Requester, error) {
	return nil, fmt.Errorf("open a VSS requester: %w", errors.ErrUnsupported)
}

func (unsupported) Delete(context.Context, string) error {
	return fmt.Errorf("delete shadow copies: %w", errors.ErrUnsupported)
}

// Run is the whole work of a child. Only Windows has the Volume Shadow Copy Service: elsewhere every call says so.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	return serve(ctx, unsupported{}, in, out)
}
