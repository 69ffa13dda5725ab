package hyperv

import (
	"fmt"
	"strings"
)

// joinPath and splitPath are for Windows paths, on every platform.
func joinPath(folder, name string) string { return strings.TrimSuffix(folder, `\`) + `\` + name }

func splitPath(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '\\')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// checkDiskPath accepts the absolute path of a .vhdx or .avhdx file on one of the host's fixed volumes. It refuses file servers, device names, alternate data
// streams and paths that climb: a disk file names its parent, and nothing that it names may lead anywhere else.
func checkDiskPath(path string, volumes []Volume) error {
	refuse := func(why string) error { return fmt.Errorf("%w: %s %s", ErrPath, path, why) }
	if len(path) < 4 || path[1] != ':' || path[2] != '\\' {
		return refuse("is not an absolute path on a drive")
	}
	if strings.ContainsAny(path[2:], `:/*?"<>|`) {
		return refuse("has characters that no file name has")
	}
	for _, part := range strings.Split(path[3:], `\`) {
		if part == "" || part == "." || part == ".." {
			return refuse("is not in its simplest form")
		}
	}
	if diskKind(path, false) != DiskVHDX {
		return refuse("is no .vhdx or .avhdx file")
	}
	for _, v := range volumes {
		if strings.EqualFold(v.Name, path[:2]) {
			return nil
		}
	}
	return refuse("is not on a fixed volume of the host")
}
