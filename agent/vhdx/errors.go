package vhdx

import (
	"errors"
	"fmt"
)

var (
	// ErrCorrupt says that the file breaks the format. It was damaged, cut short, or made by something that is not Hyper-V.
	ErrCorrupt = errors.New("the virtual disk file is corrupt")

	// ErrUnsupported says that the file may be in order, but is of a kind that this package does not read: VHD version 1, no virtual disk at
	// all, or an extension that is marked as required.
	ErrUnsupported = errors.New("the virtual disk file is not supported")

	// ErrParentMismatch says that files do not form a chain: a parent is missing or was changed after its child was made, or the members are in the
	// wrong order.
	ErrParentMismatch = errors.New("the virtual disk files do not form a chain")

	// ErrOutOfRange says that an offset or length lies outside of the virtual disk.
	ErrOutOfRange = errors.New("the range lies outside of the virtual disk")
)

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func unsupportedf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

func mismatchf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrParentMismatch}, args...)...)
}
