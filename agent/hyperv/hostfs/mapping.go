package hostfs

import (
	"fmt"
	"strconv"
	"strings"
)

// Mapping says where the volumes of a host that is not Windows lie: every Windows path of the host to a path below one local folder.
type Mapping struct {
	// Root is the local folder that holds all volumes. Nothing outside of it can be reached, not through a symlink either.
	Root string `json:"root"`
	// Volumes are tried in order; the first whose Prefix holds a path wins.
	Volumes []Volume `json:"volumes"`
	// Shadows is the slash-separated path below Root of the folder that holds the shadow copies, each in a folder by its number. "" has none.
	Shadows string `json:"shadows,omitempty"`
}

// ShadowDevice is the device path of a shadow copy without its number. What is below a device can only be read.
const ShadowDevice = `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy`

// Volume is one folder of the host.
type Volume struct {
	// Prefix is the Windows path of the folder, such as `D:\VMs` or `E:`, compared without regard to case.
	Prefix string `json:"prefix"`
	// Folder is its slash-separated path below Mapping.Root.
	Folder string `json:"folder"`
	// SizeBytes makes the volume look, and be, that small. Zero leaves it as large as the file system below it.
	SizeBytes int64 `json:"sizeBytes,omitempty"`
	// Mounted says that the folder is where a volume of its own is mounted. Otherwise it belongs to its drive, or is a cluster shared volume.
	Mounted bool `json:"mounted,omitempty"`

	shadow bool // a shadow copy, which can only be read
}

// invalidCharacters may not appear in a Windows file name.
const invalidCharacters = `<>:"|?*`

// Resolve returns the slash-separated path below Root of a Windows path, and its volume. ErrPath for every path that no volume holds.
func (m Mapping) Resolve(path string) (string, Volume, error) {
	if below, isShadow := strings.CutPrefix(path, ShadowDevice); isShadow && m.Shadows != "" {
		return m.resolveShadow(path, below)
	}
	segments, err := split(path)
	if err != nil {
		return "", Volume{}, err
	}
	for _, v := range m.Volumes {
		prefix := strings.Split(v.Prefix, `\`)
		if len(segments) >= len(prefix) && strings.EqualFold(strings.Join(segments[:len(prefix)], `\`), v.Prefix) {
			return join(v.Folder, segments[len(prefix):]), v, nil
		}
	}
	return "", Volume{}, fmt.Errorf("%w: %s lies on a volume that the host does not have", ErrPath, path)
}

// resolveShadow is Resolve for the number and the path below a shadow copy's device.
func (m Mapping) resolveShadow(path, below string) (string, Volume, error) {
	number, rest, _ := strings.Cut(below, `\`)
	if n, err := strconv.ParseUint(number, 10, 31); err != nil || strconv.FormatUint(n, 10) != number {
		return "", Volume{}, fmt.Errorf("%w: %q is no shadow copy", ErrPath, path)
	}
	// The names below obey the same rules as on any volume.
	segments, err := split(`S:\` + rest)
	if err != nil {
		return "", Volume{}, fmt.Errorf("%w: %q", ErrPath, path)
	}
	v := Volume{Prefix: ShadowDevice + number, Folder: m.Shadows + "/" + number, shadow: true}
	return join(v.Folder, segments[1:]), v, nil
}

// split cuts an absolute Windows path into its drive and names, and refuses all that Windows would read in another way than we do.
func split(path string) ([]string, error) {
	if len(path) < 2 || path[1] != ':' || !isLetter(path[0]) {
		return nil, fmt.Errorf("%w: %q has no drive letter", ErrPath, path)
	}
	clean := strings.TrimSuffix(strings.ReplaceAll(path, "/", `\`), `\`)
	segments := strings.Split(clean, `\`)
	if len(segments[0]) != 2 {
		return nil, fmt.Errorf("%w: %q is relative", ErrPath, path)
	}
	for _, name := range segments[1:] {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrPath, path, err)
		}
	}
	return segments, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("it has an empty name")
	case name == "." || name == "..":
		return fmt.Errorf("it is not a plain path")
	case strings.ContainsAny(name, invalidCharacters) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }):
		return fmt.Errorf("%q has a character that Windows does not allow", name)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return fmt.Errorf("%q ends in a dot or a space, which Windows would drop", name)
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// join appends names to a folder, where "" and "." are the root.
func join(folder string, names []string) string {
	parts := names
	if folder != "" && folder != "." {
		parts = append([]string{folder}, names...)
	}
	if len(parts) == 0 {
		return "."
	}
	return strings.Join(parts, "/")
}
