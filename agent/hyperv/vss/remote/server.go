package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// Serve is the process of one requester: it answers the calls that come over conn until conn ends, or ctx does. What runs then is canceled, and the requester
// closed. The caller closes conn.
func Serve(ctx context.Context, service vss.Service, conn io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calls := make(chan call)
	go func() {
		defer close(calls)
		defer cancel() // whoever waited for an answer is gone
		decoder := json.NewDecoder(conn)
		for {
			var c call
			if decoder.Decode(&c) != nil {
				return
			}
			select {
			case calls <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	s := &server{service: service}
	encoder := json.NewEncoder(conn)
	for {
		select {
		case <-ctx.Done():
			return s.close()
		case c, more := <-calls:
			if !more {
				return s.close()
			}
			if err := encoder.Encode(s.do(ctx, c)); err != nil {
				return errors.Join(fmt.Errorf("answer a VSS call: %w", err), s.close())
			}
		}
	}
}

// server has the requester of one connection.
type server struct {
	service   vss.Service
	requester vss.Requester
}

func (s *server) do(ctx context.Context, c call) answer {
	var a answer
	var err error
	switch {
	case c.Name == "Open" && s.requester == nil:
		s.requester, err = s.service.Open(ctx, c.Type)
	case c.Name == "Delete":
		err = s.service.Delete(ctx, c.Set)
	case c.Name == "Close":
		err = s.close()
	case s.requester == nil:
		err = fmt.Errorf("%s without a requester: %w", c.Name, vss.BadState)
	default:
		a, err = s.ask(ctx, c)
	}
	a.Error = failureOf(err)
	return a
}

// ask hands a call to the requester.
func (s *server) ask(ctx context.Context, c call) (a answer, err error) {
	switch {
	case c.Name == "Components":
		a.Components, err = s.requester.Components(ctx)
	case c.Name == "Begin" && c.Request != nil:
		a.Set, err = s.requester.Begin(ctx, *c.Request)
	case c.Name == "Snapshot":
		a.Snapshot, err = s.requester.Snapshot(ctx)
	case c.Name == "Complete":
		err = s.requester.Complete(ctx, c.Succeeded)
	default:
		err = fmt.Errorf("%q: %w", c.Name, vss.InvalidArgument)
	}
	return a, err
}

func (s *server) close() error {
	if s.requester == nil {
		return nil
	}
	err := s.requester.Close()
	s.requester = nil
	return err
}
