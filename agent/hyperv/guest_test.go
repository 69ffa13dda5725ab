package hyperv_test

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"

	. "github.com/onsi/gomega"
)

// write writes to a disk of a running VM as its guest does: over NBD, to the socket beside the disk.
func (l *lab) write(disk string, offset int64, data []byte) {
	l.Helper()
	conn, err := net.Dial("unix", filepath.Join(l.dir, disk+".nbd"))
	l.Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	be := binary.BigEndian
	send := func(p []byte) {
		_, err := conn.Write(p)
		l.Expect(err).NotTo(HaveOccurred())
	}
	receive := func(n int) []byte {
		p := make([]byte, n)
		_, err := io.ReadFull(conn, p)
		l.Expect(err).NotTo(HaveOccurred())
		return p
	}
	receive(18) // magic, option magic, flags
	name := filepath.Base(disk)
	hello := be.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	hello = be.AppendUint64(hello, 0x49484156454f5054)
	hello = be.AppendUint32(hello, 1) // NBD_OPT_EXPORT_NAME
	hello = be.AppendUint32(hello, uint32(len(name)))
	send(append(hello, name...))
	receive(10) // size, flags
	request := func(command uint16, offset int64, length int, payload []byte) {
		p := be.AppendUint32(nil, 0x25609513)
		p = be.AppendUint16(be.AppendUint16(p, 0), command)
		p = be.AppendUint64(be.AppendUint64(p, 7), uint64(offset))
		send(append(be.AppendUint32(p, uint32(length)), payload...))
	}
	for _, step := range []struct {
		command uint16
		data    []byte
	}{{1, data}, {3, nil}} { // write, flush
		at := offset
		if step.data == nil {
			at = 0
		}
		request(step.command, at, len(step.data), step.data)
		l.Expect(be.Uint32(receive(16)[4:])).To(BeZero(), "the guest's disk reports an error")
	}
	request(2, 0, 0, nil) // disconnect
}
