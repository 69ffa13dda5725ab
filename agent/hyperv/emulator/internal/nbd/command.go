package nbd

import (
	"errors"
	"fmt"
	"io"
)

// request is one command of a client.
type request struct {
	flags  uint16
	kind   uint16
	cookie uint64
	offset int64
	length int64
}

// command reads, runs and answers one request. Requests of one connection are run in their order; clients that want more at once open more
// connections.
func (c *session) command() error {
	var head [28]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return err
	}
	if magic := be.Uint32(head[:]); magic != magicRequest {
		return fmt.Errorf("request with magic %#x", magic)
	}
	q := request{
		flags: be.Uint16(head[4:]), kind: be.Uint16(head[6:]), cookie: be.Uint64(head[8:]),
		offset: int64(be.Uint64(head[16:])), length: int64(be.Uint32(head[24:])),
	}
	switch {
	case q.kind == cmdDisconnect:
		return errDone
	case q.kind == cmdWrite && q.length > maxPayload:
		return fmt.Errorf("write of %d bytes", q.length)
	}
	if q.kind == cmdWrite { // the payload follows, whether we like the request or not
		if _, err := io.ReadFull(c.r, c.buffer(q.length)); err != nil {
			return err
		}
	}
	errno := c.check(q)
	var payload []byte
	if errno == 0 {
		if payload, errno = c.execute(q); errno == 0 && q.flags&cmdFlagFUA != 0 && q.kind != cmdRead {
			errno = number(c.disk.Flush())
		}
	}
	return c.answer(q, errno, payload)
}

func (c *session) check(q request) uint32 {
	allowed := uint16(cmdFlagFUA)
	if q.kind == cmdWriteZeroes {
		allowed |= cmdFlagNoHole
	}
	switch {
	case q.flags&^allowed != 0:
		return errnoInvalid
	case q.kind == cmdRead && q.length > maxPayload:
		return errnoInvalid
	case q.kind == cmdFlush:
		return 0
	case q.offset < 0 || q.length > c.disk.Size()-q.offset:
		if q.kind == cmdWrite || q.kind == cmdWriteZeroes {
			return errnoNoSpace // the protocol asks for it behind the end
		}
		return errnoInvalid
	}
	return 0
}

func (c *session) execute(q request) (payload []byte, errno uint32) {
	switch q.kind {
	case cmdRead:
		p := c.buffer(q.length)
		_, err := c.disk.ReadAt(p, q.offset)
		return p, number(err)
	case cmdWrite:
		_, err := c.disk.WriteAt(c.buffer(q.length), q.offset)
		return nil, number(err)
	case cmdFlush:
		return nil, number(c.disk.Flush())
	case cmdTrim:
		return nil, number(c.disk.Trim(q.offset, q.length))
	case cmdWriteZeroes:
		return nil, number(c.disk.Zero(q.offset, q.length))
	}
	return nil, errnoInvalid
}

func (c *session) answer(q request, errno uint32, payload []byte) error {
	head := be.AppendUint32(be.AppendUint32(nil, magicSimpleReply), errno)
	if _, err := c.w.Write(be.AppendUint64(head, q.cookie)); err != nil {
		return err
	}
	if errno == 0 && q.kind == cmdRead {
		if _, err := c.w.Write(payload); err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// buffer is the connection's own, at most maxPayload large.
func (c *session) buffer(n int64) []byte {
	if int64(cap(c.buf)) < n {
		c.buf = make([]byte, n)
	}
	return c.buf[:n]
}

func number(err error) uint32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrNoSpace):
		return errnoNoSpace
	}
	return errnoIO
}
