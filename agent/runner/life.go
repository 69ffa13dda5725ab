package runner

import "context"

// lifeKey leads from the context of a task to that of the agent, which ends when the agent stops or loses its claim.
type lifeKey struct{}

func withLife(ctx, life context.Context) context.Context {
	return context.WithValue(ctx, lifeKey{}, life)
}

// stopping says that the work is to be left where it stands, for the agent's next session or for another agent.
func stopping(ctx context.Context) bool {
	life, found := ctx.Value(lifeKey{}).(context.Context)
	return found && life.Err() != nil
}

// committed returns a context for work that goes on although the task was canceled or is late: what was published is published, and what is on the host
// has to go. It ends only with the agent.
func committed(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, end := context.WithCancelCause(context.WithoutCancel(ctx))
	leave := func() bool { return true }
	if life, found := ctx.Value(lifeKey{}).(context.Context); found {
		leave = context.AfterFunc(life, func() { end(context.Cause(life)) })
	}
	return lasting, func() { leave(); end(nil) }
}
