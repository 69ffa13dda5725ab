package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// recorder is a disk that notes what it is asked.
type recorder struct {
	mu    sync.Mutex
	calls []string
	fail  error
}

func (d *recorder) note(format string, args ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
	return d.fail
}

func (d *recorder) Size() int64 { return 1 << 20 }
func (d *recorder) ReadAt(p []byte, at int64) (int, error) {
	return len(p), d.note("read %d+%d", at, len(p))
}
func (d *recorder) WriteAt(p []byte, at int64) (int, error) {
	return len(p), d.note("write %d+%d", at, len(p))
}
func (d *recorder) Zero(at, n int64) error { return d.note("zero %d+%d", at, n) }
func (d *recorder) Trim(at, n int64) error { return d.note("trim %d+%d", at, n) }
func (d *recorder) Flush() error           { return d.note("flush") }

func serve(t *testing.T, d Disk) (*Server, net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, "disk", d)
	t.Cleanup(func() { s.Close() })
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	hello := make([]byte, 18)
	if _, err := io.ReadFull(conn, hello); err != nil {
		t.Fatal(err)
	}
	return s, conn
}

// start chooses the export with the oldest option.
func start(t *testing.T, conn net.Conn) {
	t.Helper()
	request := append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"...)
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, conn net.Conn, flags, kind uint16, offset, length int, payload []byte) uint32 {
	t.Helper()
	head := binary.BigEndian.AppendUint32(nil, magicRequest)
	head = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(head, flags), kind)
	head = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(head, 42), uint64(offset))
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(head, uint32(length)), payload...)); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 16)
	if _, err := io.ReadFull(conn, reply); err != nil {
		t.Fatal(err)
	}
	if cookie := binary.BigEndian.Uint64(reply[8:]); cookie != 42 {
		t.Fatalf("the reply has the cookie %d", cookie)
	}
	return binary.BigEndian.Uint32(reply[4:])
}

func TestCommandsReachTheDisk(t *testing.T) {
	for name, c := range map[string]struct {
		flags, kind uint16
		payload     []byte
		want        []string
	}{
		"a write":                             {0, cmdWrite, make([]byte, 8), []string{"write 16+8"}},
		"a write with FUA is flushed":         {cmdFlagFUA, cmdWrite, make([]byte, 8), []string{"write 16+8", "flush"}},
		"zeroes with FUA are flushed":         {cmdFlagFUA | cmdFlagNoHole, cmdWriteZeroes, nil, []string{"zero 16+8", "flush"}},
		"a trim with FUA is flushed":          {cmdFlagFUA, cmdTrim, nil, []string{"trim 16+8", "flush"}},
		"a flush":                             {0, cmdFlush, nil, []string{"flush"}},
		"a flag that was not offered":         {1 << 5, cmdWrite, make([]byte, 8), nil},
		"no-hole is for zeroes and not trims": {cmdFlagNoHole, cmdTrim, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := &recorder{}
			_, conn := serve(t, d)
			start(t, conn)
			errno := send(t, conn, c.flags, c.kind, 16, 8, c.payload)
			if (errno != 0) != (c.want == nil) || !slices.Equal(d.calls, c.want) {
				t.Errorf("error %d after %v", errno, d.calls)
			}
		})
	}
}

func TestErrorsOfTheDiskReachTheGuest(t *testing.T) {
	for want, fail := range map[uint32]error{errnoNoSpace: fmt.Errorf("write: %w", ErrNoSpace), errnoIO: errors.New("broken")} {
		_, conn := serve(t, &recorder{fail: fail})
		start(t, conn)
		if errno := send(t, conn, 0, cmdWrite, 0, 4, make([]byte, 4)); errno != want {
			t.Errorf("%v became %d", fail, errno)
		}
		if errno := send(t, conn, 0, cmdRead, 0, 4, nil); errno != want {
			t.Errorf("%v became %d, or data came behind it", fail, errno)
		}
	}
}

func TestOptions(t *testing.T) {
	option := func(kind uint32, data string) []byte {
		head := binary.BigEndian.AppendUint32([]byte("IHAVEOPT"), kind)
		return append(binary.BigEndian.AppendUint32(head, uint32(len(data))), data...)
	}
	for name, c := range map[string]struct {
		kind  uint32
		data  string
		reply uint32
	}{
		"an option that we lack":              {5, "", repErrUnsup},
		"a list":                              {optList, "", repServer},
		"a list with data":                    {optList, "x", repErrInvalid},
		"information about an unknown export": {optInfo, "\x00\x00\x00\x01x\x00\x00", repErrUnknown},
		"information about the export":        {optInfo, "\x00\x00\x00\x04disk\x00\x00", repInfo},
		"a name that is longer than its data": {optGo, "\x00\x00\x00\x09x\x00\x00", repErrInvalid},
		"a length that wraps around":          {optGo, "\xff\xff\xff\xff\x00\x00", repErrInvalid},
		"a count that does not fit":           {optGo, "\x00\x00\x00\x00\x00\x09", repErrInvalid},
		"a goodbye":                           {optAbort, "", repAck},
	} {
		t.Run(name, func(t *testing.T) {
			_, conn := serve(t, &recorder{})
			if _, err := conn.Write(append([]byte{0, 0, 0, 3}, option(c.kind, c.data)...)); err != nil {
				t.Fatal(err)
			}
			reply := make([]byte, 20)
			if _, err := io.ReadFull(conn, reply); err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(reply[12:]); got != c.reply {
				t.Errorf("the reply is %#x, not %#x", got, c.reply)
			}
		})
	}
}

func TestOldClientsGetTheirZeroes(t *testing.T) {
	_, conn := serve(t, &recorder{})
	if _, err := conn.Write(append([]byte{0, 0, 0, 1}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 134)
	if _, err := io.ReadFull(conn, answer); err != nil || !bytes.Equal(answer[10:], make([]byte, 124)) {
		t.Errorf("the answer is %x, %v", answer, err)
	}
}

func TestCloseEndsConnections(t *testing.T) {
	s, conn := serve(t, &recorder{})
	start(t, conn)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection still answers")
	}
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
