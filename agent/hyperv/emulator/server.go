package emulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/nbd"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// maxRequest bounds the body of a call.
const maxRequest = 4 << 20

// shutdownGrace is how long running calls may take to end.
const shutdownGrace = 2 * time.Second

// SocketPath is where the host over dir is reached, unless told otherwise.
func SocketPath(dir string) string { return filepath.Join(dir, privateFolder, "host.sock") }

// Listen opens the host's socket. It replaces the one of a killed emulator: Open made sure that none is left.
func (h *Host) Listen(ctx context.Context) (net.Listener, error) {
	return nbd.Listen(ctx, SocketPath(h.dir))
}

// Serve answers the clients of a listener, which it takes over, until ctx ends.
func (h *Host) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: h.handler(ctx), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // what still runs has had its time
		}
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the emulated host: %w", err)
	}
	return nil
}

// handler answers calls; watches end with ctx.
func (h *Host) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	handle(mux, wire.PathQuery, func(ctx context.Context, q wire.WMI) ([]wire.Instance, error) {
		out, err := h.Session(q.Namespace).Query(ctx, q.Query)
		return wire.FromInstances(out), err
	})
	handle(mux, wire.PathGet, func(ctx context.Context, q wire.WMI) (wire.Instance, error) {
		i, err := h.Session(q.Namespace).Get(ctx, q.Path)
		return wire.FromInstance(i), err
	})
	handle(mux, wire.PathAssociators, func(ctx context.Context, q wire.WMI) ([]wire.Instance, error) {
		out, err := h.Session(q.Namespace).Associators(ctx, q.Path, q.AssocClass, q.ResultClass)
		return wire.FromInstances(out), err
	})
	handle(mux, wire.PathInvoke, func(ctx context.Context, q wire.WMI) (wire.Result, error) {
		r, err := h.Session(q.Namespace).Invoke(ctx, q.Path, q.Method, wmi.Params(q.Params))
		return wire.Result{ReturnValue: r.ReturnValue, Out: r.Out}, err
	})
	handle(mux, wire.PathDescribe, func(ctx context.Context, q wire.WMI) (wmi.Class, error) {
		return (&session{host: h, namespace: q.Namespace}).Describe(ctx, q.Class)
	})
	mux.HandleFunc("POST "+wire.PathWatch, func(w http.ResponseWriter, r *http.Request) { h.handleWatch(ctx, w, r) })
	handle(mux, wire.PathInfo, func(ctx context.Context, q wire.Disk) (virtdisk.Info, error) { return h.Disks().Info(ctx, q.Path) })
	handle(mux, wire.PathTrack, func(ctx context.Context, q wire.Disk) (struct{}, error) {
		return struct{}{}, h.Disks().EnableChangeTracking(ctx, q.Path)
	})
	handle(mux, wire.PathChanges, func(ctx context.Context, q wire.Disk) (wire.Changes, error) {
		changed, processed, err := h.Disks().Changes(ctx, q.Path, q.TrackingID, q.Window)
		return wire.Changes{Changed: changed, Processed: processed}, err
	})
	mux.HandleFunc("POST "+wire.PathAttach, h.handleAttach)
	handle(mux, wire.PathMapping, func(context.Context, struct{}) (hostfs.Mapping, error) { return h.Mapping(), nil })
	mux.HandleFunc("POST "+wire.PathVSS, h.handleVSS)
	h.handleFaults(mux)
	return mux
}

// handleFaults lets a test of processes do what Faults does in process.
func (h *Host) handleFaults(mux *http.ServeMux) {
	handle(mux, wire.PathFault, func(_ context.Context, f Fault) (struct{}, error) {
		h.faults.FailNext(f)
		return struct{}{}, nil
	})
	handle(mux, wire.PathMerges, func(_ context.Context, m wire.Merges) (struct{}, error) {
		if m.Hold {
			h.faults.HoldMerges()
		} else {
			h.faults.ReleaseMerges()
		}
		return struct{}{}, nil
	})
	handle(mux, wire.PathTrouble, func(_ context.Context, t wire.Trouble) (struct{}, error) {
		return struct{}{}, h.faults.SetTrouble(t.Machine, t.Name, t.On)
	})
	handle(mux, wire.PathHappening, func(_ context.Context, what Happening) (struct{}, error) {
		return struct{}{}, h.faults.Happen(what)
	})
	handle(mux, wire.PathJobs, func(context.Context, struct{}) (struct{}, error) {
		h.faults.ReleaseJobs()
		return struct{}{}, nil
	})
	handle(mux, wire.PathTracking, func(_ context.Context, d wire.Disk) (struct{}, error) {
		return struct{}{}, h.faults.LoseTracking(d.Path)
	})
	handle(mux, wire.PathRestart, func(context.Context, struct{}) (struct{}, error) {
		h.faults.RestartWMI()
		return struct{}{}, nil
	})
	handle(mux, wire.PathUsage, func(context.Context, struct{}) (wire.Usage, error) {
		counts := h.usage.Counts()
		counts.Disks = h.DiskHandles()
		return counts, nil
	})
	handle(mux, wire.PathQuiesced, func(context.Context, struct{}) (int, error) { return h.QuiesceCalls(), nil })
}

// handle decodes a call, runs it and encodes its answer. Errors of the call are answers too; only a body that is no call is an HTTP error.
func handle[In, Out any](mux *http.ServeMux, path string, run func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		in, ok := decode[In](w, r)
		if !ok {
			return
		}
		value, err := run(r.Context(), in)
		w.Header().Set("Content-Type", "application/json")
		// An answer that cannot be written has no reader; the client sees a broken connection.
		_ = json.NewEncoder(w).Encode(wire.Answer[Out]{Value: value, Error: wire.NewError(err)})
	})
}

// decode reads the body of a call, or refuses it.
func decode[In any](w http.ResponseWriter, r *http.Request) (in In, ok bool) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return in, false
	}
	return in, true
}

// handleWatch streams events until the client leaves or the server stops.
func (h *Host) handleWatch(serving context.Context, w http.ResponseWriter, r *http.Request) {
	q, ok := decode[wire.WMI](w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(serving, cancel)()
	w.Header().Set("Content-Type", "application/x-ndjson")
	answer := func(e wmi.Event, err error) bool {
		sent := json.NewEncoder(w).Encode(wire.Answer[wire.Event]{Value: wire.FromEvent(e), Error: wire.NewError(err)})
		return err == nil && sent == nil && http.NewResponseController(w).Flush() == nil
	}
	session := &session{host: h, namespace: q.Namespace}
	events, err := session.Watch(ctx, q.Query)
	if !answer(wmi.Event{}, err) {
		return
	}
	defer func() { _ = events.Close() }() // it only forgets
	for {
		event, err := events.Next(ctx)
		if ctx.Err() != nil || !answer(event, err) {
			return
		}
	}
}
