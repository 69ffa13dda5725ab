package client

import (
	"context"
	"io/fs"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// files asks the host once where its volumes lie.
type files struct{ client *Client }

var _ hostfs.FS = files{}

func (f files) reach(ctx context.Context) (*hostfs.Local, error) {
	c := f.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local != nil {
		return c.local, nil
	}
	mapping, err := call[struct{}, hostfs.Mapping](ctx, c, wire.PathMapping, struct{}{}, wmi.ErrDisconnected)
	if err != nil {
		return nil, err
	}
	c.local, err = hostfs.NewLocal(mapping)
	return c.local, err
}

func (f files) Open(ctx context.Context, path string) (hostfs.File, error) {
	l, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	return l.Open(ctx, path)
}

func (f files) OpenWrite(ctx context.Context, path string) (hostfs.File, error) {
	l, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	return l.OpenWrite(ctx, path)
}

func (f files) Create(ctx context.Context, path string) (hostfs.File, error) {
	l, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	return l.Create(ctx, path)
}

func (f files) Rename(ctx context.Context, from, to string) error {
	l, err := f.reach(ctx)
	if err != nil {
		return err
	}
	return l.Rename(ctx, from, to)
}

func (f files) Remove(ctx context.Context, path string) error {
	l, err := f.reach(ctx)
	if err != nil {
		return err
	}
	return l.Remove(ctx, path)
}

func (f files) ReadDir(ctx context.Context, path string) ([]fs.FileInfo, error) {
	l, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	return l.ReadDir(ctx, path)
}

func (f files) Stat(ctx context.Context, path string) (fs.FileInfo, error) {
	l, err := f.reach(ctx)
	if err != nil {
		return nil, err
	}
	return l.Stat(ctx, path)
}

func (f files) Space(ctx context.Context, path string) (hostfs.Space, error) {
	l, err := f.reach(ctx)
	if err != nil {
		return hostfs.Space{}, err
	}
	return l.Space(ctx, path)
}
