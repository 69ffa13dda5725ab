package qemu

import (
	"context"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

// LinuxPrograms are what making and booting a Linux guest needs.
var LinuxPrograms = []string{"qemu-system-x86_64", "busybox", "apt-get", "apt-cache", "dpkg-deb"}

//go:embed init.sh
var initScript []byte

// kernelPackage names Debian's smallest kernel with virtio: it depends on the package that has the files.
const kernelPackage = "linux-image-cloud-amd64"

// modules are those that a disk of QEMU's needs, in the order of loading.
var modules = []string{"virtio_ring.ko", "virtio.ko", "virtio_pci_legacy_dev.ko", "virtio_pci_modern_dev.ko", "virtio_pci.ko", "virtio_blk.ko"}

// Linux is a kernel with a small system that runs init.sh.
type Linux struct{ kernel, initrd string }

// MakeLinux makes a Linux of Debian's kernel and busybox in dir, from packages that it keeps in the folder cache and downloads once.
func MakeLinux(ctx context.Context, dir, cache string) (*Linux, error) {
	unpacked, err := unpackKernel(ctx, cache)
	if err != nil {
		return nil, fmt.Errorf("get a kernel: %w", err)
	}
	kernels, err := filepath.Glob(filepath.Join(unpacked, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return nil, fmt.Errorf("no kernel in %s", unpacked)
	}
	linux := &Linux{kernel: kernels[0], initrd: filepath.Join(dir, "initrd")}
	tree := filepath.Join(dir, "initrd.d")
	if err := fillTree(tree, unpacked); err != nil {
		return nil, fmt.Errorf("make an initrd: %w", err)
	}
	_, err = tool.Run(ctx, "sh", "-c", fmt.Sprintf("cd '%s' && find . | busybox cpio -o -H newc >'%s'", tree, linux.initrd))
	return linux, err
}

// unpackKernel downloads the kernel's package, unless an earlier call did, and returns the folder with its files.
func unpackKernel(ctx context.Context, cache string) (string, error) {
	unpacked := filepath.Join(cache, "kernel")
	if _, err := os.Stat(unpacked); err == nil {
		return unpacked, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(cache, ".kernel-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	depends, err := tool.Run(ctx, "apt-cache", "depends", kernelPackage)
	if err != nil {
		return "", err
	}
	_, name, found := strings.Cut(depends, "Depends: ")
	if !found {
		return "", fmt.Errorf("%s depends on no kernel; run apt-get update", kernelPackage)
	}
	if _, err := tool.Run(ctx, "sh", "-c", fmt.Sprintf("cd '%s' && apt-get download '%s' && dpkg-deb -x *.deb files", work, strings.Fields(name)[0])); err != nil {
		return "", err
	}
	err = os.Rename(filepath.Join(work, "files"), unpacked)
	if errors.Is(err, fs.ErrExist) {
		err = nil // another test was faster
	}
	return unpacked, err
}

// fillTree lays out the initrd's files.
func fillTree(tree, unpacked string) error {
	for _, folder := range []string{"bin", "dev", "mnt", "modules", "proc"} {
		if err := os.MkdirAll(filepath.Join(tree, folder), 0o755); err != nil {
			return err
		}
	}
	busybox, err := staticBusybox()
	if err != nil {
		return err
	}
	if err := copyFile(busybox, filepath.Join(tree, "bin", "busybox"), 0o755); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, module := range modules {
		wanted[module] = true
	}
	err = filepath.WalkDir(filepath.Join(unpacked, "lib", "modules"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !wanted[entry.Name()] {
			return err
		}
		delete(wanted, entry.Name())
		return copyFile(path, filepath.Join(tree, "modules", entry.Name()), 0o644)
	})
	if err != nil {
		return err
	}
	if len(wanted) > 0 {
		return fmt.Errorf("the kernel lacks the modules %v", wanted)
	}
	order := []byte(strings.Join(modules, "\n") + "\n")
	return errors.Join(
		os.WriteFile(filepath.Join(tree, "modules", "order"), order, 0o644),
		os.WriteFile(filepath.Join(tree, "init"), initScript, 0o755),
	)
}

// staticBusybox finds a busybox that needs no libraries: the initrd has none.
func staticBusybox() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	program, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("look into %s: %w", path, err)
	}
	defer program.Close()
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s needs libraries; install the package busybox-static", path)
		}
	}
	return path, nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, mode)
}
