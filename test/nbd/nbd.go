// Package nbd is a client of the NBD protocol over unix sockets, written from the protocol's text
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md): what a guest of the tests writes its disk with.
package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
)

const (
	magicServer      = 0x4e42444d41474943
	magicOption      = 0x49484156454f5054
	magicOptionReply = 0x3e889045565a9
	magicRequest     = 0x25609513
	magicReply       = 0x67446698

	flagFixedNewstyle = 1 << 0
	optGo             = 7
	replyAck          = 1
	replyInfo         = 3
	replyError        = 1 << 31
	infoExport        = 0

	commandRead       = 0
	commandWrite      = 1
	commandDisconnect = 2
	commandFlush      = 3
	commandTrim       = 4
	commandZero       = 6
	flagFUA           = 1 << 0

	// maxPayload is what every server takes in one request.
	maxPayload = 32 << 20
)

var order = binary.BigEndian

// Client is one connection to an export. Requests are sent one at a time, also those of several goroutines.
type Client struct {
	mu     sync.Mutex
	conn   net.Conn
	in     *bufio.Reader
	size   int64
	cookie uint64
}

// Dial connects to the default export behind a unix socket.
func Dial(socket string) (*Client, error) {
	folder, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	// By way of the open folder, because a socket's address holds 107 bytes only.
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(socket)))
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, in: bufio.NewReader(conn)}
	if err := c.handshake(); err != nil {
		return nil, errors.Join(fmt.Errorf("nbd handshake: %w", err), conn.Close())
	}
	return c, nil
}

func (c *Client) handshake() error {
	var hello struct {
		Server, Option uint64
		Flags          uint16
	}
	if err := binary.Read(c.in, order, &hello); err != nil {
		return err
	}
	if hello.Server != magicServer || hello.Option != magicOption || hello.Flags&flagFixedNewstyle == 0 {
		return errors.New("the server does not speak fixed newstyle NBD")
	}
	choose := order.AppendUint32(nil, flagFixedNewstyle)
	choose = order.AppendUint32(order.AppendUint64(choose, magicOption), optGo)
	choose = order.AppendUint32(choose, 6)                        // length of what follows
	choose = order.AppendUint16(order.AppendUint32(choose, 0), 0) // the default export, no information asked for
	if _, err := c.conn.Write(choose); err != nil {
		return err
	}
	for {
		done, err := c.optionReply()
		if err != nil || done {
			return err
		}
	}
}

func (c *Client) optionReply() (done bool, err error) {
	var head struct {
		Magic                uint64
		Option, Kind, Length uint32
	}
	if err := binary.Read(c.in, order, &head); err != nil {
		return false, err
	}
	if head.Magic != magicOptionReply || head.Length > maxPayload {
		return false, errors.New("malformed reply to an option")
	}
	data := make([]byte, head.Length)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return false, err
	}
	switch {
	case head.Kind&replyError != 0:
		return false, fmt.Errorf("the server refuses the export: %s", data)
	case head.Kind == replyInfo && len(data) >= 10 && order.Uint16(data) == infoExport:
		c.size = int64(order.Uint64(data[2:]))
	}
	return head.Kind == replyAck, nil
}

// Size is the size of the disk in bytes.
func (c *Client) Size() int64 { return c.size }

// ReadAt reads from the disk.
func (c *Client) ReadAt(p []byte, offset int64) (int, error) {
	return c.inPieces(p, offset, func(piece []byte, at int64) error {
		return c.request(commandRead, 0, at, len(piece), nil, piece)
	})
}

// WriteAt writes to the disk. What was written survives a loss of power after the next Flush.
func (c *Client) WriteAt(p []byte, offset int64) (int, error) {
	return c.inPieces(p, offset, func(piece []byte, at int64) error {
		return c.request(commandWrite, 0, at, len(piece), piece, nil)
	})
}

// WriteDurably writes so that it survives a loss of power when it returns (FUA).
func (c *Client) WriteDurably(p []byte, offset int64) error {
	_, err := c.inPieces(p, offset, func(piece []byte, at int64) error {
		return c.request(commandWrite, flagFUA, at, len(piece), piece, nil)
	})
	return err
}

// Flush makes everything that was written before survive a loss of power.
func (c *Client) Flush() error { return c.request(commandFlush, 0, 0, 0, nil, nil) }

// Trim gives a range up, as a file system does whose file was deleted.
func (c *Client) Trim(offset, length int64) error {
	return c.request(commandTrim, 0, offset, int(length), nil, nil)
}

// Zero makes a range read as zeros.
func (c *Client) Zero(offset, length int64) error {
	return c.request(commandZero, 0, offset, int(length), nil, nil)
}

// Close says goodbye and hangs up.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.send(commandDisconnect, 0, 0, 0, nil) // the server may be gone
	return c.conn.Close()
}

func (c *Client) inPieces(p []byte, offset int64, do func([]byte, int64) error) (int, error) {
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+maxPayload)]
		if err := do(piece, offset+int64(done)); err != nil {
			return done, err
		}
		done += len(piece)
	}
	return done, nil
}

func (c *Client) send(command, flags uint16, offset int64, length int, payload []byte) error {
	c.cookie++
	head := order.AppendUint16(order.AppendUint16(order.AppendUint32(nil, magicRequest), flags), command)
	head = order.AppendUint64(order.AppendUint64(head, c.cookie), uint64(offset))
	buffers := net.Buffers{order.AppendUint32(head, uint32(length)), payload}
	_, err := buffers.WriteTo(c.conn)
	return err
}

// request sends one request and waits for its reply, whose data goes into answer.
func (c *Client) request(command, flags uint16, offset int64, length int, payload, answer []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(command, flags, offset, length, payload); err != nil {
		return err
	}
	var reply struct {
		Magic, Errno uint32
		Cookie       uint64
	}
	if err := binary.Read(c.in, order, &reply); err != nil {
		return err
	}
	if reply.Magic != magicReply || reply.Cookie != c.cookie {
		return errors.New("malformed reply")
	}
	if reply.Errno != 0 {
		return fmt.Errorf("the server answered with error %d to command %d at %d", reply.Errno, command, offset)
	}
	_, err := io.ReadFull(c.in, answer)
	return err
}

// WriteOnce connects, writes durably and leaves.
func WriteOnce(socket string, p []byte, offset int64) error {
	c, err := Dial(socket)
	if err != nil {
		return err
	}
	return errors.Join(c.WriteDurably(p, offset), c.Close())
}
