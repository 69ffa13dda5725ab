//go:build windows

package com

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// closeLimit is how long Close waits for calls that are still under way. One that hangs in WMI keeps its thread.
const closeLimit = 5 * time.Second

// session is a connection to one namespace, made anew when the service went away.
type session struct {
	namespace string
	threads   *threads
	done      chan struct{}  // closed by Close
	watches   sync.WaitGroup // subscriptions

	connecting sync.Mutex

	mu      sync.Mutex
	closed  bool
	current *connection // nil until it is needed; the session is one of its users
}

var (
	_ wmi.Session   = (*session)(nil)
	_ wmi.Watcher   = (*session)(nil)
	_ wmi.Describer = (*session)(nil)
)

// Open connects to a WMI namespace of this host. wmi.ErrInvalidNamespace when the host lacks it, wmi.ErrAccessDenied without an elevated account.
func Open(ctx context.Context, namespace string) (wmi.Session, error) {
	s := New(namespace)
	_, err := call(ctx, s.(*session), func(*connection) (struct{}, error) { return struct{}{}, nil })
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// New returns a session that connects at its first call, for a namespace that the host may lack or a service that may not run yet.
func New(namespace string) wmi.Session {
	return &session{namespace: namespace, threads: newThreads(), done: make(chan struct{})}
}

// acquire makes the caller a user of the connection, which it makes if there is none. It runs in the apartment.
func (s *session) acquire() (*connection, error) {
	s.connecting.Lock() // others wait for the connection that is being made
	defer s.connecting.Unlock()
	if c, err := s.use(nil); c != nil || err != nil {
		return c, err
	}
	made, err := connect(s.namespace)
	if err != nil {
		return nil, err
	}
	c, err := s.use(made)
	if err != nil {
		made.leave()
	}
	return c, err
}

// use counts a user of the connection, of a newly made one if there is none; nil when there is neither.
func (s *session) use(made *connection) (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.current == nil {
		s.current = made
	}
	if s.current != nil {
		s.current.users.Add(1)
	}
	return s.current, nil
}

// drop makes the next call connect anew, unless another call has seen to it. It runs in the apartment.
func (s *session) drop(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == c && c != nil {
		s.current = nil
		c.leave()
	}
}

// call runs f on a thread of the session, with its connection.
func call[T any](ctx context.Context, s *session, f func(*connection) (T, error)) (T, error) {
	if err := context.Cause(ctx); err != nil {
		var none T
		return none, err
	}
	return run(ctx, s.threads, func() (T, error) {
		c, err := contain(s.acquire)
		if err != nil {
			var none T
			return none, err
		}
		defer c.leave()
		value, err := contain(func() (T, error) { return f(c) })
		if errors.Is(err, wmi.ErrDisconnected) {
			s.drop(c)
		}
		return value, err
	})
}

// Query implements wmi.Session.
func (s *session) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	out, err := call(ctx, s, func(c *connection) ([]wmi.Instance, error) {
		out := []wmi.Instance{}
		return out, c.query(wql, collect(&out))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", wql, err)
	}
	return out, nil
}

// collect reads instances into a list.
func collect(out *[]wmi.Instance) func(object) error {
	return func(o object) error {
		i, err := o.instance()
		if err == nil {
			*out = append(*out, i)
		}
		return err
	}
}

// Get implements wmi.Session.
func (s *session) Get(ctx context.Context, path string) (wmi.Instance, error) {
	return call(ctx, s, func(c *connection) (wmi.Instance, error) {
		o, err := c.get(path)
		if err != nil {
			return wmi.Instance{}, err
		}
		defer o.release()
		return o.instance()
	})
}

// Associators implements wmi.Session.
func (s *session) Associators(ctx context.Context, path, assocClass, resultClass string) ([]wmi.Instance, error) {
	return call(ctx, s, func(c *connection) ([]wmi.Instance, error) {
		o, err := c.get(path)
		if err != nil {
			return nil, err
		}
		defer o.release()
		found, err := o.call("Associators_", assocClass, resultClass)
		if err != nil {
			return nil, err
		}
		defer found.release()
		out := []wmi.Instance{}
		if err := found.each("Associators_", collect(&out)); err != nil {
			return nil, fmt.Errorf("%s by %s of %s: %w", resultClass, assocClass, path, err)
		}
		return out, nil
	})
}

// Invoke implements wmi.Session.
func (s *session) Invoke(ctx context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	return call(ctx, s, func(c *connection) (wmi.Result, error) {
		target, err := c.get(path)
		if err != nil {
			return wmi.Result{}, err
		}
		defer target.release()
		result, err := c.execute(target, method, in)
		if err != nil {
			return wmi.Result{}, fmt.Errorf("%s of %s: %w", method, path, err)
		}
		return result, nil
	})
}

// Close implements wmi.Session. Subscriptions of the session end with it.
func (s *session) Close() error {
	s.mu.Lock()
	again, c := s.closed, s.current
	s.closed, s.current = true, nil
	s.mu.Unlock()
	if again {
		return nil
	}
	close(s.done)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if c != nil {
			leave, err := join()
			defer leave()
			if err == nil {
				c.leave()
			}
		}
		s.watches.Wait()
		close(s.threads.quit)
		s.threads.wg.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(closeLimit):
	}
	return nil
}
