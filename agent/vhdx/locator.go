package vhdx

import (
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Keys of a parent locator ([MS-VHDX] 2.6.2.6.3). Paths are in the order in which Hyper-V tries them.
const (
	KeyParentLinkage  = "parent_linkage"
	KeyParentLinkage2 = "parent_linkage2"
	KeyRelativePath   = "relative_path"
	KeyVolumePath     = "volume_path"
	KeyAbsolutePath   = "absolute_win32_path"
)

// maxLocatorEntries is ten times what Hyper-V writes, so that a hostile locator cannot use up memory.
const maxLocatorEntries = 64

var locatorTypeVHDX = uuid.MustParse("B04AEFB7-D19E-4A81-B789-25B8E9445913")

// locator is the decoded parent locator of a differencing disk.
type locator map[string]string

// ParentRef names the parent of a differencing disk that is created or reconnected.
type ParentRef struct {
	// DataWriteID is the parent's DataWriteGuid at this moment.
	DataWriteID uuid.UUID

	// MergedID is a second DataWriteGuid under which the parent is accepted, for the time of a merge. uuid.Nil outside of merges.
	MergedID uuid.UUID

	// RelativePath leads from the folder of the child to the parent, such as `.\base.vhdx`. At least one of the paths is given.
	RelativePath string

	// AbsolutePath is a Win32 path such as `D:\VMs\base.vhdx`.
	AbsolutePath string
}

// locator converts the reference to the entries of a parent locator.
func (p ParentRef) locator() locator {
	l := locator{KeyParentLinkage: braced(p.DataWriteID)}
	if p.MergedID != uuid.Nil {
		l[KeyParentLinkage2] = braced(p.MergedID)
	}
	if p.RelativePath != "" {
		l[KeyRelativePath] = p.RelativePath
	}
	if p.AbsolutePath != "" {
		l[KeyAbsolutePath] = p.AbsolutePath
	}
	return l
}

func braced(id uuid.UUID) string { return "{" + id.String() + "}" }

// accepts says whether a parent with this DataWriteGuid is the one that the locator names.
func (l locator) accepts(parent uuid.UUID) bool {
	return strings.EqualFold(l[KeyParentLinkage], braced(parent)) || strings.EqualFold(l[KeyParentLinkage2], braced(parent))
}

func readLocator(r io.ReaderAt, offset, length int64) (locator, error) {
	if length < 20 {
		return nil, corruptf("its parent locator has only %d bytes", length)
	}
	item := make([]byte, length) // at most maxMetadataItem
	if err := readFull(r, item, offset); err != nil {
		return nil, err
	}
	if kind := readGUID(item); kind != locatorTypeVHDX {
		return nil, unsupportedf("its parent locator has the unknown type %s", kind)
	}
	count := int(le.Uint16(item[18:]))
	if count > maxLocatorEntries || 20+12*count > len(item) {
		return nil, corruptf("its parent locator claims %d entries", count)
	}
	l := make(locator, count)
	for i := range count {
		entry := item[20+12*i:]
		key, keyOK := locatorText(item, le.Uint32(entry[0:]), le.Uint16(entry[8:]))
		value, valueOK := locatorText(item, le.Uint32(entry[4:]), le.Uint16(entry[10:]))
		if !keyOK || !valueOK || key == "" {
			return nil, corruptf("entry %d of its parent locator lies outside of the locator", i)
		}
		if _, twice := l[key]; twice {
			return nil, corruptf("its parent locator has the key %q twice", key)
		}
		l[key] = value
	}
	if _, err := uuid.Parse(l[KeyParentLinkage]); err != nil {
		return nil, corruptf("its parent locator has no valid %s", KeyParentLinkage)
	}
	return l, nil
}

func locatorText(item []byte, offset uint32, length uint16) (string, bool) {
	end := uint64(offset) + uint64(length)
	if end > uint64(len(item)) || length%2 != 0 {
		return "", false
	}
	return decodeUTF16(item[offset:end]), true
}

func (l locator) encode() []byte {
	head := make([]byte, 20+12*len(l))
	putGUID(head, locatorTypeVHDX)
	le.PutUint16(head[18:], uint16(len(l)))
	var text []byte
	add := func(s string) (at uint32, n uint16) {
		b := encodeUTF16(s)
		at = uint32(len(head) + len(text))
		text = append(text, b...)
		return at, uint16(len(b))
	}
	for i, key := range slices.Sorted(maps.Keys(l)) {
		entry := head[20+12*i:]
		keyAt, keyLength := add(key)
		valueAt, valueLength := add(l[key])
		le.PutUint32(entry[0:], keyAt)
		le.PutUint32(entry[4:], valueAt)
		le.PutUint16(entry[8:], keyLength)
		le.PutUint16(entry[10:], valueLength)
	}
	return slices.Concat(head, text)
}
