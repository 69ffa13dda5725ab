package shim

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// echo gives back what it gets, waits on demand, and tells when its process is gone.
type echo struct {
	called chan string
	gone   chan struct{}
}

func (e *echo) call(ctx context.Context, function string, args []any) (uint32, []any) {
	if function == "wait" {
		e.called <- function
		<-ctx.Done()
	}
	return 7, args
}

func (e *echo) exit() { e.gone <- struct{}{} }

// start serves echo until the test ends.
func start(t *testing.T) (e *echo, dial func() net.Conn) {
	t.Helper()
	e = &echo{called: make(chan string), gone: make(chan struct{}, 16)}
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s := newServer(nil, map[string]starter{"echo": func(*emulator.Host) process { return e }})
	go func() { ended <- s.serveAll(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e, func() net.Conn {
		conn, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func send(t *testing.T, conn net.Conn, values ...any) {
	t.Helper()
	if err := WriteFrame(conn, values...); err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindOfValueArrivesAsItWasSent(t *testing.T) {
	_, dial := start(t)
	conn := dial()
	send(t, conn, "echo", uint64(1), uint32(2), false)
	values := []any{
		nil, Missing{}, true, false, int8(-1), uint8(200), int16(-300), uint16(65535), int32(-1), uint32(1 << 31), int64(-1 << 63), uint64(1<<64 - 1),
		float32(1.5), 2.25, "", `büro "x" \ 漢字 🙂`, []byte{}, []byte{0, 255}, Object(9),
		List{Of: Text, Items: []any{"a", ""}}, List{Of: Variant, Items: []any{int32(1), "b", nil, List{Of: Uint16, Items: []any{uint16(3)}}}}, List{Of: Text},
	}
	send(t, conn, append([]any{"echo"}, values...)...)
	got, err := ReadFrame(conn)
	if err != nil || !reflect.DeepEqual(got, append([]any{uint32(7)}, values...)) {
		t.Errorf("got %#v, %v", got, err)
	}
	if err := WriteFrame(io.Discard, struct{ X int }{}); err == nil {
		t.Error("a value without a kind was sent")
	}
}

func TestProcessIsThereWhileItHasAConnection(t *testing.T) {
	e, dial := start(t)
	first, second := dial(), dial()
	for _, conn := range []net.Conn{first, second} {
		send(t, conn, "echo", uint64(1), uint32(2), false)
		send(t, conn, "now")
		if _, err := ReadFrame(conn); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	send(t, second, "wait")
	<-e.called
	select {
	case <-e.gone:
		t.Fatal("the process is gone, and has a connection")
	default:
	}
	second.Close() // as a process that is killed in a call
	<-e.gone
}

func TestProcessEndsWithItsPresence(t *testing.T) {
	e, dial := start(t)
	presence, calls := dial(), dial()
	send(t, presence, "echo", uint64(1), uint32(2), true)
	send(t, calls, "echo", uint64(1), uint32(2), false)
	send(t, calls, "wait")
	<-e.called
	presence.Close() // as a process that is killed, and of whose connections one stays open
	<-e.gone
}

func TestConnectionsThatSpeakAnotherLanguageAreClosed(t *testing.T) {
	_, dial := start(t)
	for name, raw := range map[string]string{
		"another protocol":         "GET / HTTP/1.1\r\n\r\n",
		"a huge frame":             "\xff\xff\xff\x7f",
		"an unknown service":       frameOf(t, "nothing", uint64(1), uint32(2), false),
		"a hello without process":  frameOf(t, "echo"),
		"an empty request":         frameOf(t, "echo", uint64(1), uint32(2), false) + "\x00\x00\x00\x00",
		"a request without name":   frameOf(t, "echo", uint64(3), uint32(2), false) + frameOf(t, uint32(1)),
		"a value that is cut off":  "\x07\x00\x00\x00\x13\x00\x04\x00\x00\x00\x01",
		"a value of unknown kind":  "\x06\x00\x00\x00\x63\x00\x00\x00\x00\x00",
		"a number of another size": "\x07\x00\x00\x00\x13\x00\x01\x00\x00\x00\x01",
	} {
		conn := dial()
		if _, err := conn.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, conn); n != 0 || (err != nil && !isReset(err)) {
			t.Errorf("%s: answered with %d bytes, %v", name, n, err)
		}
	}
}

func frameOf(t *testing.T, values ...any) string {
	t.Helper()
	var b strings.Builder
	if err := WriteFrame(&b, values...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// isReset says that the peer closed with data of ours unread.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}
