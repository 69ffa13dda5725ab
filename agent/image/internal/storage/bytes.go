package storage

import (
	"bytes"
	"io"
)

// Bytes is a blob in memory, to be stored.
type Bytes []byte

// Length is the number of bytes.
func (b Bytes) Length() int { return len(b) }

// Reader reads the bytes from the start. Every call gives another one.
func (b Bytes) Reader() io.ReadSeekCloser { return closable{bytes.NewReader(b)} }

// WriteTo writes the bytes out. It may be called again.
func (b Bytes) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

type closable struct{ io.ReadSeeker }

func (closable) Close() error { return nil }

// buffer is what a blob is read into.
type buffer struct{ bytes.Buffer }

func (b *buffer) Length() int { return b.Len() }
