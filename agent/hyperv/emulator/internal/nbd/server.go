package nbd

import (
	"errors"
	"net"
	"sync"
)

// Disk is what a server exports. It is called from several connections at once; what one has written and flushed, all others see.
type Disk interface {
	Size() int64
	ReadAt(p []byte, offset int64) (int, error)
	WriteAt(p []byte, offset int64) (int, error)
	// Zero makes a range read as zeros. Trim does too, and may give its space back.
	Zero(offset, length int64) error
	Trim(offset, length int64) error
	// Flush makes everything that was acknowledged before durable.
	Flush() error
}

// ErrNoSpace is what a Disk's error wraps when the guest is to see a full disk.
var ErrNoSpace = errors.New("no space left")

// Server is one export, under the empty name and under its own.
type Server struct {
	name string
	disk Disk

	mu       sync.Mutex
	closed   bool
	listener net.Listener
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup
}

// Serve starts to serve a disk on a listener, which the server takes over.
func Serve(l net.Listener, name string, disk Disk) *Server {
	s := &Server{name: name, disk: disk, listener: l, conns: make(map[net.Conn]struct{})}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.accept()
	}()
	return s
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		if !s.add(conn) {
			_ = conn.Close() // nobody is left to tell
			return
		}
		go func() {
			defer s.wg.Done()
			defer s.remove(conn)
			c := &session{conn: conn, name: s.name, disk: s.disk}
			// The client sees a broken protocol as a closed connection, as NBD wants it; nobody else would read the error.
			_ = c.run()
		}()
	}
}

func (s *Server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close() // nobody is left to tell
	delete(s.conns, conn)
}

// Close ends all connections as a machine that is switched off does, and returns when no request is running any more. A second
// call does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	err := s.listener.Close()
	for conn := range s.conns {
		_ = conn.Close() // nobody is left to tell
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// Connections returns how many clients are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
