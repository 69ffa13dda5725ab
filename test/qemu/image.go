// Package qemu has QEMU's own tools make, judge and use virtual disks: an implementation of VHDX that shares no code with ours.
package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

// Convert makes a VHDX file of a raw one. options are qemu-img's own, such as subformat=fixed or block_size=1M.
func Convert(ctx context.Context, raw, vhdx string, options ...string) error {
	_, err := tool.Run(ctx, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "vhdx"}, withOptions(options)...), raw, vhdx)...)
	return err
}

// Create makes an empty VHDX file with a virtual disk of size bytes.
func Create(ctx context.Context, vhdx string, size int64, options ...string) error {
	_, err := tool.Run(ctx, "qemu-img", append(append([]string{"create", "-q", "-f", "vhdx"}, withOptions(options)...), vhdx, fmt.Sprint(size))...)
	return err
}

func withOptions(options []string) []string {
	if len(options) == 0 {
		return nil
	}
	return []string{"-o", strings.Join(options, ",")}
}

// Compare returns an error that says where a raw file and a VHDX file differ in what a guest would read, its size included.
func Compare(ctx context.Context, raw, vhdx string) error {
	stat, err := os.Stat(raw)
	if err != nil {
		return err
	}
	size, err := Size(ctx, vhdx)
	if err != nil {
		return err
	}
	if size != stat.Size() {
		return fmt.Errorf("%s has a disk of %d bytes, %s has %d", vhdx, size, raw, stat.Size())
	}
	_, err = tool.Run(ctx, "qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, vhdx)
	return err
}

// Size is the size of the disk in a VHDX file, in bytes.
func Size(ctx context.Context, vhdx string) (int64, error) {
	text, err := tool.Run(ctx, "qemu-img", "info", "--output=json", "-f", "vhdx", vhdx)
	if err != nil {
		return 0, err
	}
	var info struct {
		VirtualSize int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return 0, fmt.Errorf("read what qemu-img says of %s: %w", vhdx, err)
	}
	return info.VirtualSize, nil
}

// Check has qemu-img look for structural damage in a VHDX file.
func Check(ctx context.Context, vhdx string) error {
	_, err := tool.Run(ctx, "qemu-img", "check", "-q", "-f", "vhdx", vhdx)
	return err
}

// Export writes what a guest would read of a VHDX file into a sparse raw file.
func Export(ctx context.Context, vhdx, raw string) error {
	_, err := tool.Run(ctx, "qemu-img", "convert", "-f", "vhdx", "-O", "raw", vhdx, raw)
	return err
}
