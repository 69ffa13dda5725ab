package shim

import (
	"context"
	"time"
)

// vssAsync is one IVssAsync: a call that goes on after it returned.
type vssAsync struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when result is there
	result uint32
}

// start runs work as the IVssAsync of a function. It ends with its backup, not with the call that started it. A failure of it counts as one of the function.
func (b *vssBackup) start(function string, work func(context.Context) error) (uint32, []any) {
	ctx, cancel := context.WithCancel(b.life)
	a := &vssAsync{cancel: cancel, ended: make(chan struct{})}
	b.running.Go(func() {
		defer cancel()
		defer close(a.ended)
		err := work(ctx)
		switch {
		case ctx.Err() != nil:
			a.result = asyncCanceled
		case err != nil:
			a.result = codeOf(err)
			b.process.host.Usage().Count(function, a.result)
		default:
			a.result = asyncFinished
		}
	})
	return 0, []any{b.process.keep(a)}
}

func (a *vssAsync) call(ctx context.Context, function string, args []any) (uint32, []any) {
	switch function {
	case "Cancel", "Release":
		a.cancel()
		return 0, nil
	case "Wait":
		if len(args) != 1 {
			return unexpected, nil
		}
		milliseconds, _ := args[0].(uint32)
		select {
		case <-a.ended:
		case <-ctx.Done():
		case <-time.After(time.Duration(milliseconds) * time.Millisecond):
		}
		return 0, nil
	case "QueryStatus":
		select {
		case <-a.ended:
			return 0, []any{a.result}
		default:
			return 0, []any{uint32(asyncPending)}
		}
	}
	return notImplemented, nil
}
