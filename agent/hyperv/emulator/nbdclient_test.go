package emulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// guest is a small NBD client of the tests' own: unlike the tools it says exactly which writes were acknowledged before a kill.
type guest struct {
	conn net.Conn
	size int64
}

func dialGuest(socket string) (*guest, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	g := &guest{conn: conn}
	if err := g.negotiate(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return g, nil
}

// negotiate uses the oldest option, NBD_OPT_EXPORT_NAME; the tools use NBD_OPT_GO.
func (g *guest) negotiate() error {
	var hello [18]byte
	if _, err := io.ReadFull(g.conn, hello[:]); err != nil {
		return err
	}
	request := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	request = append(request, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"...)
	if _, err := g.conn.Write(request); err != nil {
		return err
	}
	var export [10]byte
	_, err := io.ReadFull(g.conn, export[:])
	g.size = int64(binary.BigEndian.Uint64(export[:]))
	return err
}

const (
	nbdRead = iota
	nbdWrite
	_
	nbdFlush
	nbdTrim
	_
	nbdWriteZeroes
)

func (g *guest) command(kind uint16, offset, length int64, payload, into []byte) error {
	head := binary.BigEndian.AppendUint32(nil, 0x25609513)
	head = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(head, 0), kind)
	head = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(head, 7), uint64(offset))
	head = binary.BigEndian.AppendUint32(head, uint32(length))
	if _, err := g.conn.Write(append(head, payload...)); err != nil {
		return err
	}
	var reply [16]byte
	if _, err := io.ReadFull(g.conn, reply[:]); err != nil {
		return err
	}
	if errno := binary.BigEndian.Uint32(reply[4:]); errno != 0 {
		return fmt.Errorf("the server answered error %d", errno)
	}
	_, err := io.ReadFull(g.conn, into)
	return err
}

func (g *guest) write(p []byte, offset int64) error {
	return g.command(nbdWrite, offset, int64(len(p)), p, nil)
}
func (g *guest) read(p []byte, offset int64) error {
	return g.command(nbdRead, offset, int64(len(p)), nil, p)
}
func (g *guest) flush() error { return g.command(nbdFlush, 0, 0, nil, nil) }
func (g *guest) zero(offset, length int64) error {
	return g.command(nbdWriteZeroes, offset, length, nil, nil)
}
func (g *guest) close() error { return g.conn.Close() }
