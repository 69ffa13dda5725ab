package emulator

import (
	"bufio"
	"context"
	"io"
	"net/http"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/remote"
)

// handleVSS turns a connection into that of one VSS requester, which lives as long as the connection.
func (h *Host) handleVSS(w http.ResponseWriter, _ *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	served := h.run(func() {
		stop := context.AfterFunc(h.ctx, func() { _ = conn.Close() })
		defer stop()
		defer func() { _ = conn.Close() }() // the client sees the end either way
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: vss\r\n\r\n"); err != nil {
			return
		}
		both := struct {
			*bufio.Reader
			io.Writer
		}{buffered.Reader, conn}
		if err := remote.Serve(h.ctx, h.VSS(), both); err != nil {
			h.log.Warn("a VSS requester ended", "error", err)
		}
	})
	if !served {
		_ = conn.Close() // the host is closing
	}
}
