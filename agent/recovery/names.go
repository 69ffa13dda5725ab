package recovery

import (
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// DiskFiles names the files of restored disks after the original's. Members of a checkpoint's chain, and names that two disks share, give way to the
// disk's key.
func DiskFiles(disks []image.DiskRecord, format Format) []string {
	const native = ".vhdx"
	names := []string{}
	taken := map[string]bool{}
	for _, disk := range disks {
		name := FileName(disk.SourcePath[strings.LastIndexByte(disk.SourcePath, '\\')+1:])
		if lower := strings.ToLower(name); !strings.HasSuffix(lower, native) || taken[lower] {
			name = FileName(disk.Key) + native
		}
		taken[strings.ToLower(name)] = true
		if format == Raw {
			name = name[:len(name)-len(native)] + ".raw"
		}
		names = append(names, name)
	}
	return names
}

// FileName makes a text fit for a name on NTFS and elsewhere: what an image calls its files leads out of no folder.
func FileName(text string) string {
	name := strings.Map(func(c rune) rune {
		if c < ' ' || strings.ContainsRune(`<>:"/\|?*`, c) {
			return '_'
		}
		return c
	}, text)
	return strings.TrimRight(name, " .")
}
