package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

var be = binary.BigEndian

// errDone ends a session that the client closed in an orderly way.
var errDone = errors.New("done")

// session is one connection.
type session struct {
	conn     net.Conn
	name     string
	disk     Disk
	r        *bufio.Reader
	w        *bufio.Writer
	noZeroes bool
	buf      []byte
}

func (c *session) run() error {
	c.r, c.w = bufio.NewReaderSize(c.conn, 64<<10), bufio.NewWriterSize(c.conn, 64<<10)
	err := c.handshake()
	for err == nil {
		err = c.command()
	}
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// handshake negotiates options until the client has chosen an export.
func (c *session) handshake() error {
	hello := be.AppendUint64(be.AppendUint64(nil, magicServer), magicOption)
	if err := c.send(be.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)); err != nil {
		return err
	}
	var clientFlags [4]byte
	if _, err := io.ReadFull(c.r, clientFlags[:]); err != nil {
		return err
	}
	flags := be.Uint32(clientFlags[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("unknown client flags %#x", flags)
	}
	c.noZeroes = flags&flagNoZeroes != 0
	for {
		started, err := c.option()
		if err != nil || started {
			return err
		}
	}
}

// option answers one option and says whether transmission starts.
func (c *session) option() (started bool, err error) {
	var head [16]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return false, err
	}
	option, length := be.Uint32(head[8:]), be.Uint32(head[12:])
	if be.Uint64(head[:]) != magicOption || length > maxOption {
		return false, fmt.Errorf("option %d of %d bytes", option, length)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(c.r, data); err != nil {
		return false, err
	}
	switch option {
	case optExportName:
		return true, c.exportName(string(data))
	case optAbort:
		return false, errors.Join(c.reply(option, repAck, nil), errDone)
	case optList:
		if length != 0 {
			return false, c.reply(option, repErrInvalid, nil)
		}
		export := append(be.AppendUint32(nil, uint32(len(c.name))), c.name...)
		return false, errors.Join(c.reply(option, repServer, export), c.reply(option, repAck, nil))
	case optInfo, optGo:
		return c.info(option, data)
	}
	return false, c.reply(option, repErrUnsup, nil)
}

// exportName is the option that has no way to refuse but to hang up.
func (c *session) exportName(name string) error {
	if !c.serves(name) {
		return fmt.Errorf("no export %q", name)
	}
	answer := be.AppendUint16(be.AppendUint64(nil, uint64(c.disk.Size())), transmissionFlags)
	if !c.noZeroes {
		answer = append(answer, make([]byte, 124)...)
	}
	return c.send(answer)
}

func (c *session) info(option uint32, data []byte) (started bool, err error) {
	if len(data) < 6 || uint64(be.Uint32(data))+6 > uint64(len(data)) {
		return false, c.reply(option, repErrInvalid, nil)
	}
	n := int(be.Uint32(data))
	name, requests := string(data[4:4+n]), data[4+n+2:]
	if int(be.Uint16(data[4+n:]))*2 != len(requests) {
		return false, c.reply(option, repErrInvalid, nil)
	}
	if !c.serves(name) {
		return false, c.reply(option, repErrUnknown, nil)
	}
	export := be.AppendUint64(be.AppendUint16(nil, infoExport), uint64(c.disk.Size()))
	blocks := be.AppendUint32(be.AppendUint32(be.AppendUint32(be.AppendUint16(nil, infoBlockSize), minBlock), preferredBlock), maxPayload)
	for _, info := range [][]byte{be.AppendUint16(export, transmissionFlags), blocks, append(be.AppendUint16(nil, infoName), c.name...)} {
		if err := c.reply(option, repInfo, info); err != nil {
			return false, err
		}
	}
	return option == optGo, c.reply(option, repAck, nil)
}

func (c *session) serves(name string) bool { return name == "" || name == c.name }

func (c *session) reply(option, kind uint32, data []byte) error {
	head := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOptionReply), option), kind)
	return c.send(append(be.AppendUint32(head, uint32(len(data))), data...))
}

func (c *session) send(p []byte) error {
	_, err := c.w.Write(p)
	return errors.Join(err, c.w.Flush())
}
