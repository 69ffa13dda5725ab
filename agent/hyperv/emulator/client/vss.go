package client

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/remote"
)

// VSS is the host's Volume Shadow Copy Service. Each requester has a connection of its own, and ends with it.
func (c *Client) VSS() vss.Service { return remote.New(c.connectVSS) }

func (c *Client) connectVSS(ctx context.Context) (io.ReadWriteCloser, error) {
	// The connection outlives the call that makes it.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://host"+wire.PathVSS, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "vss")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	conn, upgraded := response.Body.(io.ReadWriteCloser)
	if response.StatusCode != http.StatusSwitchingProtocols || !upgraded {
		_ = response.Body.Close() // read only
		return nil, fmt.Errorf("the emulated host refused a VSS requester: %s", response.Status)
	}
	return conn, nil
}
