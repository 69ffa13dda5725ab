package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// Attacher shows the content of the host's disks. This process reads it from a file; the attachment ends with the connection that made it.
func (c *Client) Attacher() virtdisk.Attacher { return disks{c} }

// Attach implements virtdisk.Attacher.
func (d disks) Attach(ctx context.Context, path string, way virtdisk.Way) (virtdisk.Content, error) {
	attached, connection, err := d.client.attach(ctx, wire.Attach{Path: path, Way: way})
	if err != nil {
		return nil, err
	}
	file, err := files(d).Open(ctx, attached.Path)
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	return &content{File: file, size: attached.Size, connection: connection}, nil
}

// attach returns the connection that the attachment lives as long as.
func (c *Client) attach(ctx context.Context, q wire.Attach) (wire.Attached, io.ReadWriteCloser, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return wire.Attached{}, nil, err
	}
	// The connection outlives the call that makes it, which may still be given up.
	living, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	request, err := http.NewRequestWithContext(living, http.MethodPost, "http://host"+wire.PathAttach, bytes.NewReader(body))
	if err != nil {
		return wire.Attached{}, nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "disk")
	response, err := c.http.Do(request)
	if err != nil {
		return wire.Attached{}, nil, away(ctx, err, virtdisk.ErrDisconnected)
	}
	conn, upgraded := response.Body.(io.ReadWriteCloser)
	if !upgraded {
		return wire.Attached{}, nil, errors.Join(fmt.Errorf("the emulated host refused to attach: %s", response.Status), response.Body.Close())
	}
	var answer wire.Answer[wire.Attached]
	err = json.NewDecoder(conn).Decode(&answer)
	switch {
	case err != nil || !stop():
		err = away(ctx, err, virtdisk.ErrDisconnected)
	case answer.Error != nil:
		err = answer.Error
	default:
		return answer.Value, conn, nil
	}
	return wire.Attached{}, nil, errors.Join(err, conn.Close())
}

// content is an attached disk's.
type content struct {
	hostfs.File
	size       int64
	connection io.ReadWriteCloser
}

// Size implements virtdisk.Content.
func (c *content) Size() int64 { return c.size }

// Close implements virtdisk.Content. It returns when the host has detached the disk.
func (c *content) Close() error {
	if c.connection == nil {
		return nil
	}
	errs := []error{c.File.Close()}
	if _, gone := c.connection.Write([]byte{'.'}); gone == nil { // a host that is gone has detached everything
		var answer wire.Answer[struct{}]
		if json.NewDecoder(c.connection).Decode(&answer) == nil && answer.Error != nil {
			errs = append(errs, answer.Error)
		}
	}
	errs = append(errs, c.connection.Close())
	c.connection = nil
	return errors.Join(errs...)
}
