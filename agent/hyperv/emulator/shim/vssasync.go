package shim

import (
	"context"
	"sync"
)

// vssAsync is one IVssAsync: a call that goes on after it returned.
type vssAsync struct {
	cancel context.CancelFunc

	mu     sync.Mutex
	result uint32
}

// start runs work as an IVssAsync. It ends with its backup, not with the call that started it.
func (b *vssBackup) start(work func(context.Context) error) (uint32, []any) {
	ctx, cancel := context.WithCancel(b.life)
	a := &vssAsync{cancel: cancel, result: asyncPending}
	b.running.Go(func() {
		defer cancel()
		err := work(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			a.result = asyncCanceled
		case err != nil:
			a.result = codeOf(err)
		default:
			a.result = asyncFinished
		}
	})
	return 0, []any{b.process.keep(a)}
}

func (a *vssAsync) call(function string) (uint32, []any) {
	switch function {
	case "Cancel", "Release":
		a.cancel()
		return 0, nil
	case "QueryStatus":
		a.mu.Lock()
		defer a.mu.Unlock()
		return 0, []any{a.result}
	}
	return notImplemented, nil
}
