// Package client reaches an emulated Hyper-V host that runs in another process, through its socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Client is a connection to a host. It is safe for concurrent use, and connects anew at the next call after the host was away.
type Client struct {
	http *http.Client

	mu    sync.Mutex
	local *hostfs.Local // once the host has said where its volumes lie
}

// Dial prepares a connection to the socket. The host need not be there yet: calls return ErrDisconnected of their seam until it is.
func Dial(socket string) *Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return &Client{http: &http.Client{Transport: transport}}
}

// Close ends the connection. A second call does nothing.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local == nil {
		return nil
	}
	err := c.local.Close()
	c.local = nil
	return err
}

// Session connects to a WMI namespace.
func (c *Client) Session(namespace string) wmi.Session { return session{c, namespace} }

// Disks is the host's virtual-disk service.
func (c *Client) Disks() virtdisk.Service { return disks{c} }

// Files is the host's volumes. The bytes of files do not go through the socket: this process opens the files itself.
func (c *Client) Files() hostfs.FS { return files{c} }

// call sends one call. A host that is away is told by the error of the caller's seam.
func call[In, Out any](ctx context.Context, c *Client, path string, in In, disconnected error) (Out, error) {
	var answer wire.Answer[Out]
	body, err := json.Marshal(in)
	if err != nil {
		return answer.Value, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://host"+path, bytes.NewReader(body))
	if err != nil {
		return answer.Value, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer.Value, away(ctx, err, disconnected)
	}
	defer func() { _ = response.Body.Close() }() // read only
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // as far as it can be read
		return answer.Value, fmt.Errorf("the emulated host refused %s: %s: %s", path, response.Status, bytes.TrimSpace(text))
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return answer.Value, away(ctx, err, disconnected)
	}
	if answer.Error != nil {
		return answer.Value, answer.Error
	}
	return answer.Value, nil
}

func away(ctx context.Context, err, disconnected error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", disconnected, err)
}

var _ wmi.Describer = session{}

type session struct {
	client    *Client
	namespace string
}

func (s session) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	return s.instances(ctx, wire.PathQuery, wire.WMI{Namespace: s.namespace, Query: wql})
}

func (s session) Associators(ctx context.Context, path, assocClass, resultClass string) ([]wmi.Instance, error) {
	return s.instances(ctx, wire.PathAssociators, wire.WMI{Namespace: s.namespace, Path: path, AssocClass: assocClass, ResultClass: resultClass})
}

func (s session) instances(ctx context.Context, path string, q wire.WMI) ([]wmi.Instance, error) {
	all, err := call[wire.WMI, []wire.Instance](ctx, s.client, path, q, wmi.ErrDisconnected)
	if err != nil {
		return nil, err
	}
	out := make([]wmi.Instance, 0, len(all))
	for _, i := range all {
		out = append(out, i.WMI())
	}
	return out, nil
}

func (s session) Get(ctx context.Context, path string) (wmi.Instance, error) {
	i, err := call[wire.WMI, wire.Instance](ctx, s.client, wire.PathGet, wire.WMI{Namespace: s.namespace, Path: path}, wmi.ErrDisconnected)
	if err != nil {
		return wmi.Instance{}, err
	}
	return i.WMI(), nil
}

func (s session) Invoke(ctx context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	q := wire.WMI{Namespace: s.namespace, Path: path, Method: method, Params: wire.Values(in)}
	r, err := call[wire.WMI, wire.Result](ctx, s.client, wire.PathInvoke, q, wmi.ErrDisconnected)
	return wmi.Result{ReturnValue: r.ReturnValue, Out: r.Out}, err
}

// Describe implements wmi.Describer.
func (s session) Describe(ctx context.Context, class string) (wmi.Class, error) {
	return call[wire.WMI, wmi.Class](ctx, s.client, wire.PathDescribe, wire.WMI{Namespace: s.namespace, Class: class}, wmi.ErrDisconnected)
}

// Close does nothing: sessions share the connection of their client.
func (s session) Close() error { return nil }

type disks struct{ client *Client }

func (d disks) Info(ctx context.Context, path string) (virtdisk.Info, error) {
	return call[wire.Disk, virtdisk.Info](ctx, d.client, wire.PathInfo, wire.Disk{Path: path}, virtdisk.ErrDisconnected)
}

func (d disks) EnableChangeTracking(ctx context.Context, path string) error {
	_, err := call[wire.Disk, struct{}](ctx, d.client, wire.PathTrack, wire.Disk{Path: path}, virtdisk.ErrDisconnected)
	return err
}

func (d disks) Changes(ctx context.Context, path, trackingID string, window extent.Extent) ([]extent.Extent, int64, error) {
	q := wire.Disk{Path: path, TrackingID: trackingID, Window: window}
	c, err := call[wire.Disk, wire.Changes](ctx, d.client, wire.PathChanges, q, virtdisk.ErrDisconnected)
	return c.Changed, c.Processed, err
}
