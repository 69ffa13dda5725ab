package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

var _ wmi.Watcher = session{}

// Watch implements wmi.Watcher.
func (s session) Watch(ctx context.Context, wql string) (wmi.Subscription, error) {
	body, err := json.Marshal(wire.WMI{Namespace: s.namespace, Query: wql})
	if err != nil {
		return nil, err
	}
	streaming, cancel := context.WithCancel(context.WithoutCancel(ctx))
	subscribing := context.AfterFunc(ctx, cancel)
	request, err := http.NewRequestWithContext(streaming, http.MethodPost, "http://host"+wire.PathWatch, bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, err
	}
	response, err := s.client.http.Do(request) //nolint:bodyclose // Close does, when the subscription ends
	if err != nil {
		cancel()
		return nil, away(ctx, err, wmi.ErrDisconnected)
	}
	w := &subscription{body: response.Body, cancel: cancel, read: make(chan wire.Answer[wire.Event])}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the emulated host refused a watch: %s", response.Status), w.Close())
	}
	w.wg.Go(func() { w.receive(streaming) })
	_, err = w.Next(ctx) // the subscription stands, or its error
	if err != nil || !subscribing() {
		return nil, errors.Join(err, context.Cause(ctx), w.Close())
	}
	return w, nil
}

// subscription is a stream of answers from the host.
type subscription struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	wg     sync.WaitGroup
	read   chan wire.Answer[wire.Event]
	ended  error
}

// receive reads answers until the first error, its last answer.
func (w *subscription) receive(ctx context.Context) {
	decoder := json.NewDecoder(w.body)
	for {
		var answer wire.Answer[wire.Event]
		if err := decoder.Decode(&answer); err != nil {
			answer.Error = wire.NewError(fmt.Errorf("%w: %w", wmi.ErrDisconnected, err))
		}
		select {
		case <-ctx.Done():
			return
		case w.read <- answer:
			if answer.Error != nil {
				return
			}
		}
	}
}

// Next implements wmi.Subscription.
func (w *subscription) Next(ctx context.Context) (wmi.Event, error) {
	if w.ended != nil {
		return wmi.Event{}, w.ended
	}
	select {
	case <-ctx.Done():
		return wmi.Event{}, context.Cause(ctx)
	case answer := <-w.read:
		if answer.Error != nil {
			w.ended = answer.Error
			return wmi.Event{}, w.ended
		}
		return answer.Value.WMI(), nil
	}
}

// Close implements wmi.Subscription.
func (w *subscription) Close() error {
	w.ended = wmi.ErrDisconnected
	w.cancel()
	w.wg.Wait()
	_ = w.body.Close() // read only
	return nil
}
