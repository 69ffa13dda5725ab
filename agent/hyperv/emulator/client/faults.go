package client

import (
	"context"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Fault makes the next calls of a method fail.
type Fault = wire.Fault

// FailNext does what emulator.Faults.FailNext does.
func (c *Client) FailNext(ctx context.Context, f Fault) error {
	_, err := call[Fault, struct{}](ctx, c, wire.PathFault, f, wmi.ErrDisconnected)
	return err
}

// HoldMerges stops all merges, or lets them go on.
func (c *Client) HoldMerges(ctx context.Context, hold bool) error {
	_, err := call[wire.Merges, struct{}](ctx, c, wire.PathMerges, wire.Merges{Hold: hold}, wmi.ErrDisconnected)
	return err
}

// LoseTracking does what emulator.Faults.LoseTracking does.
func (c *Client) LoseTracking(ctx context.Context, path string) error {
	_, err := call[wire.Disk, struct{}](ctx, c, wire.PathTracking, wire.Disk{Path: path}, wmi.ErrDisconnected)
	return err
}

// RestartWMI does what emulator.Faults.RestartWMI does.
func (c *Client) RestartWMI(ctx context.Context) error {
	_, err := call[struct{}, struct{}](ctx, c, wire.PathRestart, struct{}{}, wmi.ErrDisconnected)
	return err
}

// Usage is what was done with the host.
type Usage = wire.Usage

// Usage returns what was done with the host up to now.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	return call[struct{}, Usage](ctx, c, wire.PathUsage, struct{}{}, wmi.ErrDisconnected)
}

// Happening is something that happens to a host once.
type Happening = wire.Happening

// Happen does what emulator.Faults.Happen does.
func (c *Client) Happen(ctx context.Context, what Happening) error {
	_, err := call[Happening, struct{}](ctx, c, wire.PathHappening, what, wmi.ErrDisconnected)
	return err
}

// SetTrouble does what emulator.Faults.SetTrouble does.
func (c *Client) SetTrouble(ctx context.Context, machine, name string, on bool) error {
	_, err := call[wire.Trouble, struct{}](ctx, c, wire.PathTrouble, wire.Trouble{Machine: machine, Name: name, On: on}, wmi.ErrDisconnected)
	return err
}

// ReleaseJobs does what emulator.Faults.ReleaseJobs does.
func (c *Client) ReleaseJobs(ctx context.Context) error {
	_, err := call[struct{}, struct{}](ctx, c, wire.PathJobs, struct{}{}, wmi.ErrDisconnected)
	return err
}

// QuiesceCalls counts how often a guest was asked to quiesce.
func (c *Client) QuiesceCalls(ctx context.Context) (int, error) {
	return call[struct{}, int](ctx, c, wire.PathQuiesced, struct{}{}, wmi.ErrDisconnected)
}
