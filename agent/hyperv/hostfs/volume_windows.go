package hostfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/windows"
)

// NativeVolume is the volume of this machine that a folder, which exists, lies on. GetVolumePathName finds those that are mounted in folders, but for cluster
// shared volumes, which it is not meant for and which their paths tell.
func NativeVolume(folder string) (string, error) {
	folder = strings.TrimSuffix(folder, `\`) + `\`
	volume := VolumeOf(folder)
	if len(volume) != len(`C:\`) {
		return volume, nil
	}
	name := folder
	if len(name) >= windows.MAX_PATH {
		name = `\\?\` + name
	}
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return "", fmt.Errorf("%w: %q", ErrPath, folder)
	}
	found := make([]uint16, len(name)+1) // the volume is a part of the path
	if err := windows.GetVolumePathName(path, &found[0], uint32(len(found))); err != nil {
		return "", fmt.Errorf("GetVolumePathName %s: %w", folder, err)
	}
	if at := strings.TrimPrefix(windows.UTF16ToString(found), `\\?\`); len(at) > len(volume) {
		volume = at
	}
	return volume, nil
}
