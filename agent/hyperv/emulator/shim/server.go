package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// AddressPath is the file that says where the shims of the host over dir are served.
func AddressPath(dir string) string { return filepath.Join(dir, ".hyperv", "shims") }

// Listen opens a listener, and writes its address to AddressPath(dir) for those who start programs under Wine.
func Listen(ctx context.Context, dir, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the shims: %w", err)
	}
	if err := os.WriteFile(AddressPath(dir), []byte(l.Addr().String()+"\n"), 0o644); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve answers the shims that connect to a listener, which it takes over, until ctx ends. Then their connections are closed, and it returns when all
// that the processes held was given back.
func Serve(ctx context.Context, host *emulator.Host, l net.Listener) error {
	return newServer(host, services).serveAll(ctx, l)
}

type server struct {
	host     *emulator.Host
	services map[string]starter
	wg       sync.WaitGroup

	mu        sync.Mutex
	processes map[processKey]*entry
}

func newServer(host *emulator.Host, services map[string]starter) *server {
	return &server{host: host, services: services, processes: make(map[processKey]*entry)}
}

func (s *server) serveAll(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { _ = l.Close() }) // Accept tells
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return errors.Join(fmt.Errorf("serve the shims: %w", err), l.Close())
		}
		s.wg.Go(func() {
			if err := s.serve(ctx, conn); err != nil && ctx.Err() == nil {
				slog.DebugContext(ctx, "a shim's connection ended", "error", err)
			}
		})
	}
}

// processKey is what the connections of one process have in common.
type processKey struct {
	service string
	id      uint64
}

// entry is a process and the number of its connections, all of which end ends.
type entry struct {
	process     process
	connections int
	present     context.Context
	end         context.CancelFunc
}

// serve answers one connection until it ends.
func (s *server) serve(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()                                  //nolint:errcheck // nothing is left to send
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // readers and writers tell
	hello, err := ReadFrame(conn)
	if err != nil {
		return err
	}
	key, presence, err := s.parseHello(hello)
	if err != nil {
		return err
	}
	e := s.enter(key)
	defer s.leave(key)
	if presence {
		defer e.end()
	}
	context.AfterFunc(e.present, cancel)
	// Reading goes on while a call runs, so that a process that dies in a call is noticed at once.
	requests, failed := make(chan []any), make(chan error, 1)
	go func() {
		defer cancel()
		for {
			request, err := ReadFrame(conn)
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	for {
		select {
		case request := <-requests:
			if err := answer(ctx, conn, e.process, request); err != nil {
				return err
			}
		case <-ctx.Done():
			return <-failed
		}
	}
}

func answer(ctx context.Context, conn net.Conn, p process, request []any) error {
	if len(request) == 0 {
		return errMalformed
	}
	function, ok := request[0].(string)
	if !ok {
		return fmt.Errorf("%w: a function's name is text", errMalformed)
	}
	status, results := p.call(ctx, function, request[1:])
	return WriteFrame(conn, append([]any{status}, results...)...)
}

func (s *server) parseHello(hello []any) (key processKey, presence bool, err error) {
	if len(hello) != 4 {
		return key, false, fmt.Errorf("%w: a hello has 4 values", errMalformed)
	}
	name, isText := hello[0].(string)
	id, isNumber := hello[1].(uint64)
	presence, isBool := hello[3].(bool)
	if !isText || !isNumber || !isBool || s.services[name] == nil {
		return key, false, fmt.Errorf("%w: there is no service %v", errMalformed, hello[0])
	}
	return processKey{service: name, id: id}, presence, nil
}

func (s *server) enter(key processKey) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.processes[key]
	if e == nil {
		e = &entry{process: s.services[key.service](s.host)}
		e.present, e.end = context.WithCancel(context.Background())
		s.processes[key] = e
	}
	e.connections++
	return e
}

func (s *server) leave(key processKey) {
	s.mu.Lock()
	e := s.processes[key]
	e.connections--
	last := e.connections == 0
	if last {
		delete(s.processes, key)
	}
	s.mu.Unlock()
	if last {
		e.end()
		e.process.exit()
	}
}
