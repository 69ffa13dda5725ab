package hostfs

import "strings"

// Space is what a volume has.
type Space struct {
	// Volume is the folder that the volume is mounted in, with a trailing backslash: a drive such as `D:\`, the folder of a cluster shared volume, or any other.
	Volume string `json:"volume,omitempty"`
	Free   int64  `json:"free"` // bytes
	Total  int64  `json:"total"`
}

// sharedVolumes is where the shared volumes of a failover cluster are mounted.
const sharedVolumes = `C:\ClusterStorage\`

// VolumeOf is the volume that a file lies on by its path alone: its drive, such as `D:\`, or the folder of a cluster shared volume, such as
// `C:\ClusterStorage\Volume1\`. "" for a path that names neither. Which folders other volumes are mounted in only the host knows: see Space.
func VolumeOf(path string) string {
	if len(path) < 3 || path[1] != ':' || path[2] != '\\' {
		return ""
	}
	if len(path) > len(sharedVolumes) && strings.EqualFold(path[:len(sharedVolumes)], sharedVolumes) {
		if i := strings.IndexByte(path[len(sharedVolumes):], '\\'); i > 0 {
			return sharedVolumes + path[len(sharedVolumes):len(sharedVolumes)+i+1]
		}
	}
	return strings.ToUpper(path[:1]) + `:\`
}

// VolumeOf is the volume that a path lies on, also of one that is mounted in a folder: what GetVolumePathName answers on Windows.
func (m Mapping) VolumeOf(path string) string {
	for _, v := range m.Volumes {
		if at := v.Prefix + `\`; v.Mounted && len(path) >= len(at) && strings.EqualFold(path[:len(at)], at) {
			return at
		}
	}
	return VolumeOf(path)
}
