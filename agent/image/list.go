package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

const (
	listStream = "kopia:indirect"
	listHead   = `{"stream":"` + listStream + `","entries":[`
	listTail   = "]}\n"

	// maxListBytes bounds what a list read from a repository may occupy: the root of a 64 TiB disk, read whole, has some 80 MB.
	maxListBytes = 256 << 20
)

// entry is one line of a list: length bytes at start are those of an object, which is a leaf or, in a root list, another list.
type entry = object.IndirectObjectEntry

// writeList stores a list and returns the object that has the content of everything it lists. Entries must follow each other without a gap.
func writeList(ctx context.Context, w repo.RepositoryWriter, entries iter.Seq[entry]) (object.ID, error) {
	list, err := writeListObject(ctx, w, func(out io.Writer) error { return encodeList(out, entries) })
	if err != nil {
		return object.EmptyID, err
	}
	return listedBy(list)
}

// writeListObject stores the bytes of a list, or of a piece of one, apart from data.
func writeListObject(ctx context.Context, w repo.RepositoryWriter, fill func(io.Writer) error) (object.ID, error) {
	out := w.NewObjectWriter(ctx, object.WriterOptions{
		Prefix: listPrefix, Splitter: listSplitter, Compressor: listCompressor, MetadataCompressor: listCompressor,
	})
	defer out.Close() //nolint:errcheck // it only gives buffers back
	if err := fill(out); err != nil {
		return object.EmptyID, err
	}
	return out.Result()
}

// listedBy is the object that a list describes: it is named by the list's own id behind one more "I".
func listedBy(list object.ID) (object.ID, error) { return object.ParseID("I" + list.String()) }

// encodeList writes the same bytes as kopia's own encoder, and the same bytes again for the same entries: equal lists are stored once.
func encodeList(w io.Writer, entries iter.Seq[entry]) error {
	out := bufio.NewWriterSize(w, 64<<10)
	out.WriteString(listHead) //nolint:errcheck // Flush returns the error
	var line []byte
	first := true
	for e := range entries {
		line = line[:0]
		if !first {
			line = append(line, ',')
		}
		first = false
		line = appendEntry(line, e)
		out.Write(line) //nolint:errcheck // as above
	}
	out.WriteString(listTail) //nolint:errcheck // as above
	return out.Flush()
}

// appendEntry is what encoding/json makes of an entry. Lists are most of what an increment of a large disk would otherwise compute.
func appendEntry(line []byte, e entry) []byte {
	line = append(line, '{')
	if e.Start != 0 {
		line = append(line, `"s":`...)
		line = strconv.AppendInt(line, e.Start, 10)
		line = append(line, ',')
	}
	if e.Length != 0 {
		line = append(line, `"l":`...)
		line = strconv.AppendInt(line, e.Length, 10)
		line = append(line, ',')
	}
	line = append(line, `"o":"`...)
	line = e.Object.Append(line)
	return append(line, `"}`...)
}

// readList reads the list behind an object and checks that its entries cover size bytes without gap or overlap.
func readList(ctx context.Context, r repo.Repository, id object.ID, size int64) ([]entry, error) {
	list, ok := id.IndexObjectID()
	if !ok {
		return nil, fmt.Errorf("object %s is not a list", id)
	}
	text, err := readWhole(ctx, r, list, maxListBytes)
	if err != nil {
		return nil, err
	}
	entries, err := decodeList(text)
	if err != nil {
		return nil, err
	}
	return entries, checkList(entries, size)
}

// readWhole reads an object of no more than limit bytes.
func readWhole(ctx context.Context, r repo.Repository, id object.ID, limit int64) ([]byte, error) {
	in, err := r.OpenObject(ctx, id)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // read only
	if in.Length() < 0 || in.Length() > limit {
		return nil, fmt.Errorf("object %s has %d bytes, more than %d", id, in.Length(), limit)
	}
	text := make([]byte, in.Length())
	_, err = io.ReadFull(in, text)
	return text, err
}

// decodeList reads a list in any form that kopia accepts, and fast the form in which kopia and encodeList write it.
func decodeList(text []byte) ([]entry, error) {
	if entries, ok := scanList(string(text)); ok {
		return entries, nil
	}
	var decoded struct {
		Stream  string  `json:"stream"`
		Entries []entry `json:"entries"`
	}
	if err := json.Unmarshal(text, &decoded); err != nil {
		return nil, err
	}
	if decoded.Stream != listStream {
		return nil, errors.New("not a list of objects")
	}
	return decoded.Entries, nil
}

// scanList reads a list that has exactly the form that encodeList gives it. It accepts nothing that encoding/json reads differently.
func scanList(text string) ([]entry, bool) {
	text, ok := strings.CutPrefix(text, listHead)
	if !ok {
		return nil, false
	}
	if text, ok = strings.CutSuffix(text, listTail); !ok {
		return nil, false
	}
	entries := make([]entry, 0, len(text)/50)
	for text != "" {
		if len(entries) > 0 {
			if text, ok = strings.CutPrefix(text, ","); !ok {
				return nil, false
			}
		}
		var e entry
		if e, text, ok = scanEntry(text); !ok {
			return nil, false
		}
		entries = append(entries, e)
	}
	return entries, true
}

func scanEntry(text string) (e entry, rest string, ok bool) {
	if text, ok = strings.CutPrefix(text, "{"); !ok {
		return e, "", false
	}
	if after, found := strings.CutPrefix(text, `"s":`); found {
		if e.Start, text, ok = scanNumber(after); !ok {
			return e, "", false
		}
	}
	if after, found := strings.CutPrefix(text, `"l":`); found {
		if e.Length, text, ok = scanNumber(after); !ok {
			return e, "", false
		}
	}
	if text, ok = strings.CutPrefix(text, `"o":"`); !ok {
		return e, "", false
	}
	id, rest, ok := strings.Cut(text, `"}`)
	if !ok || strings.ContainsAny(id, `"\`) {
		return e, "", false
	}
	var err error
	e.Object, err = object.ParseID(id)
	return e, rest, err == nil
}

// scanNumber reads a positive number with the comma behind it.
func scanNumber(text string) (n int64, rest string, ok bool) {
	i := 0
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		if n > (math.MaxInt64-9)/10 {
			return 0, "", false
		}
		n = n*10 + int64(text[i]-'0')
	}
	if i == 0 || text[0] == '0' || i == len(text) || text[i] != ',' {
		return 0, "", false
	}
	return n, text[i+1:], true
}

func checkList(entries []entry, size int64) error {
	var at int64
	for _, e := range entries {
		if e.Start != at || e.Length <= 0 || e.Length > size-at {
			return fmt.Errorf("list has a gap or an overlap at %d", at)
		}
		at += e.Length
	}
	if at != size {
		return fmt.Errorf("list covers %d bytes in place of %d", at, size)
	}
	return nil
}
