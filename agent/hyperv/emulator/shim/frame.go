package shim

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxFrame bounds a payload. The largest are arrays of changed ranges.
const maxFrame = 64 << 20

// ReadFrame returns the values of the next frame, for WriteFrame to send on as they are. io.EOF when the peer has closed the connection.
func ReadFrame(r io.Reader) ([]any, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes is too large", size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, fmt.Errorf("read a frame: %w", err)
	}
	return decode(payload)
}

// WriteFrame sends values, of the kinds that this package lists, in one frame.
func WriteFrame(w io.Writer, values ...any) error {
	frame := make([]byte, 4, 256)
	for _, v := range values {
		var err error
		if frame, err = appendValue(frame, v); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-4))
	_, err := w.Write(frame)
	return err
}
