package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// maxSocketPath is what sockaddr_un holds on Linux, without the closing NUL.
const maxSocketPath = 107

// Listen opens a unix socket at path, replacing one that a killed process left behind. The path may be longer than a socket address: on
// Linux it is then bound by way of its open folder, and a client has to use a short path of its own, such as a relative one.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	var config net.ListenConfig
	if len(path) <= maxSocketPath {
		return config.Listen(ctx, "unix", path)
	}
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("the socket path %s is longer than %d bytes; move the folder to a shorter path", path, maxSocketPath)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	l, err := config.Listen(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), folder.Close())
	}
	return &folderListener{Listener: l, folder: folder}, nil
}

// folderListener keeps the folder open until the socket is removed from it.
type folderListener struct {
	net.Listener
	folder *os.File
}

func (l *folderListener) Close() error { return errors.Join(l.Listener.Close(), l.folder.Close()) }
