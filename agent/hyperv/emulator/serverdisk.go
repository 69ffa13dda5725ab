package emulator

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
)

// handleAttach turns a connection into that of an attached disk. The bytes do not go through it: the client reads them where they lie. When the client
// says anything, or ends, the disk is detached, and the client told how that went.
func (h *Host) handleAttach(w http.ResponseWriter, r *http.Request) {
	var q wire.Attach
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	served := h.run(func() {
		stop := context.AfterFunc(h.ctx, func() { _ = conn.Close() })
		defer stop()
		defer func() { _ = conn.Close() }() // the client sees the end either way
		h.serveAttached(conn, buffered.Reader, q)
	})
	if !served {
		_ = conn.Close() // the host is closing
	}
}

func (h *Host) serveAttached(conn net.Conn, in *bufio.Reader, q wire.Attach) {
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: disk\r\n\r\n"); err != nil {
		return
	}
	d, attached, err := h.attachPlaced(h.ctx, q)
	answered := json.NewEncoder(conn).Encode(wire.Answer[wire.Attached]{Value: attached, Error: wire.NewError(err)})
	if err != nil {
		return
	}
	if answered == nil {
		_, _ = in.ReadByte() // whether it comes or not, the disk is not needed any more
	}
	_ = json.NewEncoder(conn).Encode(wire.Answer[struct{}]{Error: wire.NewError(d.end())}) // a client that is gone does not ask
}

func (h *Host) attachPlaced(ctx context.Context, q wire.Attach) (*DiskHandle, wire.Attached, error) {
	d, err := h.attach(ctx, q.Path, q.Way, func(d *DiskHandle) error {
		_, err := d.Place()
		return err
	})
	if err != nil {
		return nil, wire.Attached{}, err
	}
	return d, wire.Attached{Path: windowsAttached(filepath.Base(d.contentFile())), Size: d.size()}, nil
}
