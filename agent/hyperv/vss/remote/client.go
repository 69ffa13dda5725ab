// Package remote keeps a VSS requester in another process: calls and answers are lines of JSON over one connection for each requester. On Windows that process
// is a child of the agent, because a requester needs other COM security than WMI does, and because its shadow copies are to end with it. When either side
// dies the connection ends, and with it the requester.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// closeTimeout bounds the orderly end of a requester. Its process is ended then in any case.
const closeTimeout = time.Minute

// Service makes requesters in other processes.
type Service struct {
	connect func(context.Context) (io.ReadWriteCloser, error)
}

var _ vss.Service = Service{}

// New makes a service whose requesters are behind the connections that connect makes, each served by Serve. ctx is for the connecting alone.
func New(connect func(context.Context) (io.ReadWriteCloser, error)) Service { return Service{connect} }

// Open implements vss.Service.
func (s Service) Open(ctx context.Context, kind vss.BackupType) (vss.Requester, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.call(ctx, call{Name: "Open", Type: kind}); err != nil {
		return nil, errors.Join(err, c.end())
	}
	return c, nil
}

// Delete implements vss.Service.
func (s Service) Delete(ctx context.Context, setID string) error {
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, call{Name: "Delete", Set: setID})
	_ = c.end() // the call's answer is what counts
	return err
}

func (s Service) dial(ctx context.Context) (*requester, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vss.ErrDisconnected, err)
	}
	return &requester{conn: conn, encoder: json.NewEncoder(conn), decoder: json.NewDecoder(conn)}, nil
}

// requester is one connection.
type requester struct {
	conn    io.ReadWriteCloser
	encoder *json.Encoder
	decoder *json.Decoder
	once    sync.Once
}

// call sends a call and waits for its answer. When ctx ends the connection does too: that is how the other side learns of it.
func (r *requester) call(ctx context.Context, c call) (answer, error) {
	stop := context.AfterFunc(ctx, func() { _ = r.end() })
	var a answer
	err := r.encoder.Encode(c)
	if err == nil {
		err = r.decoder.Decode(&a)
	}
	switch {
	case !stop():
		return answer{}, ctx.Err()
	case err != nil:
		return answer{}, fmt.Errorf("%s: %w: %w", c.Name, vss.ErrDisconnected, err)
	case a.Error != nil:
		return answer{}, a.Error
	}
	return a, nil
}

// end closes the connection, once.
func (r *requester) end() error {
	var err error
	r.once.Do(func() { err = r.conn.Close() })
	return err
}

// Components implements vss.Requester.
func (r *requester) Components(ctx context.Context) ([]vss.Component, error) {
	a, err := r.call(ctx, call{Name: "Components"})
	return a.Components, err
}

// Begin implements vss.Requester.
func (r *requester) Begin(ctx context.Context, request vss.Request) (string, error) {
	a, err := r.call(ctx, call{Name: "Begin", Request: &request})
	return a.Set, err
}

// Snapshot implements vss.Requester.
func (r *requester) Snapshot(ctx context.Context) (vss.Snapshot, error) {
	a, err := r.call(ctx, call{Name: "Snapshot"})
	return a.Snapshot, err
}

// Complete implements vss.Requester.
func (r *requester) Complete(ctx context.Context, succeeded bool) error {
	_, err := r.call(ctx, call{Name: "Complete", Succeeded: succeeded})
	return err
}

// Close implements vss.Requester. A requester whose process is gone is closed already.
func (r *requester) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_, err := r.call(ctx, call{Name: "Close"})
	if errors.Is(err, vss.ErrDisconnected) {
		err = nil
	}
	_ = r.end() // the call's answer is what counts
	return err
}
