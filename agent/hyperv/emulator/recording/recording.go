// Package recording keeps what a Hyper-V host answered, so that tests can ask it again.
//
// A Recorder stands between the agent and the seams of a host and writes every call with its answer to a file. A Recording, read from such a file, is
// those seams: it gives the same answers to the same calls and knows no others. So the inventory and the preflight of a host that somebody
// recorded once run in tests, on any computer, for ever.
//
// # The file
//
// A file is JSON lines. The first line is the header, each other line one call: its name, what went in, what came out or the error, and how long the host
// took. WMI values keep their types. The contents of disks and other files are never in it.
package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
)

// The header's identification. A program that does not know the version refuses the file.
const (
	format  = "hyperkeep-recording"
	version = 1
)

// Header is the first line of a file.
type Header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	// Made is when the recording began, by the clock of the computer that recorded.
	Made time.Time `json:"made"`
	// Agent is the version of the program that recorded.
	Agent string `json:"agent"`
	// Redacted says that names, ids and addresses were replaced.
	Redacted bool `json:"redacted,omitempty"`
}

// The names of the calls.
const (
	callQuery       = "wmi.query"
	callGet         = "wmi.get"
	callAssociators = "wmi.associators"
	callInvoke      = "wmi.invoke"
	callDescribe    = "wmi.describe"
	callInfo        = "virtdisk.info"
	callTrack       = "virtdisk.track"
	callChanges     = "virtdisk.changes"
	callStat        = "files.stat"
	callReadDir     = "files.readDir"
	callSpace       = "files.space"
)

// entry is one call and its answer.
type entry struct {
	Call   string          `json:"call"`
	In     json.RawMessage `json:"in,omitempty"`
	Out    json.RawMessage `json:"out,omitempty"`
	Error  *wire.Error     `json:"error,omitempty"`
	Millis int64           `json:"millis"`
}

// key is what a call is found by: its name and what went in, however that was written.
func (e entry) key() (string, error) {
	in, err := canonical(e.In)
	return e.Call + " " + string(in), err
}

// canonical writes JSON in the one way that two calls are compared in.
func canonical(text json.RawMessage) ([]byte, error) {
	value, err := decode(text)
	if err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

func decode(text json.RawMessage) (any, error) {
	if len(text) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

// ErrFormat means that a file is no recording, or one of another version.
var ErrFormat = errors.New("not a recording that this program can read")

// readEntries reads a file line by line.
func readEntries(r io.Reader, each func(entry) error) (Header, error) {
	decoder := json.NewDecoder(r)
	var header Header
	if err := decoder.Decode(&header); err != nil || header.Format != format {
		return header, fmt.Errorf("%w: its first line is not the header of one", ErrFormat)
	}
	if header.Version != version {
		return header, fmt.Errorf("%w: it has version %d, and this program knows version %d", ErrFormat, header.Version, version)
	}
	for line := 2; ; line++ {
		var e entry
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return header, nil
		}
		if err != nil {
			return header, fmt.Errorf("%w: line %d: %w", ErrFormat, line, err)
		}
		if err := each(e); err != nil {
			return header, fmt.Errorf("line %d: %w", line, err)
		}
	}
}
