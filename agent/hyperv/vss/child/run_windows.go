package child

import (
	"context"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/com"
)

// Run is the whole work of a child: it serves one requester until its input ends. The calling goroutine keeps its thread.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	service, err := com.Initialize()
	if err != nil {
		return err
	}
	return serve(ctx, service, in, out)
}
