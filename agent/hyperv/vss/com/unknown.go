//go:build windows

package com

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// unknown is a COM object: a pointer to its vtable, of which IVssBackupComponents has the longest.
type unknown struct{ vtable *[51]uintptr }

const slotRelease = 2 // IUnknown

// call invokes the method in a slot. Arguments are int, bool, string (null when empty), windows.GUID by value, and unsafe.Pointer to Go memory that the method
// reads or fills. A failure is a vss.Code.
func (u *unknown) call(slot int, args ...any) error {
	var pinned runtime.Pinner // memory that a method sees neither moves nor goes while it runs
	defer pinned.Unpin()
	words := []uintptr{uintptr(unsafe.Pointer(u))}
	for _, arg := range args {
		switch v := arg.(type) {
		case int:
			words = append(words, uintptr(v))
		case bool:
			words = append(words, uintptr(map[bool]int{true: 1}[v]))
		case string:
			text, err := wide(v)
			if err != nil {
				return err
			}
			pinned.Pin(text)
			words = append(words, uintptr(unsafe.Pointer(text)))
		case windows.GUID:
			id := &v
			pinned.Pin(id)
			words = append(words, byValue(id)...)
		case unsafe.Pointer:
			pinned.Pin(v)
			words = append(words, uintptr(v))
		default:
			return fmt.Errorf("%w: an argument of type %T", vss.InvalidArgument, arg)
		}
	}
	result, _, _ := syscall.SyscallN(u.vtable[slot], words...)
	return failed(result)
}

// byValue is a GUID as an argument. The convention of x64 passes what is larger than a register as a pointer to a copy, that of Arm64 in two registers.
func byValue(id *windows.GUID) []uintptr {
	if runtime.GOARCH == "arm64" {
		words := *(*[2]uintptr)(unsafe.Pointer(id))
		return words[:]
	}
	return []uintptr{uintptr(unsafe.Pointer(id))}
}

// wide is a text for a call, null when it is empty.
func wide(text string) (*uint16, error) {
	if text == "" {
		return nil, nil
	}
	return windows.UTF16PtrFromString(text)
}

func (u *unknown) release() {
	_, _, _ = syscall.SyscallN(u.vtable[slotRelease], uintptr(unsafe.Pointer(u))) // the number of references left
}

// failed is the error of an HRESULT, nil for the many kinds of success.
func failed(result uintptr) error {
	if code := uint32(result); int32(code) < 0 {
		return vss.Code(code)
	}
	return nil
}

var (
	oleaut32      = windows.NewLazySystemDLL("oleaut32.dll")
	sysFreeString = oleaut32.NewProc("SysFreeString")
)

// takeText reads a BSTR and frees it.
func takeText(bstr *uint16) string {
	if bstr == nil {
		return ""
	}
	text := windows.UTF16PtrToString(bstr)
	_, _, _ = sysFreeString.Call(uintptr(unsafe.Pointer(bstr))) // returns nothing
	return text
}

// guid reads an id with or without braces.
func guid(id string) (windows.GUID, error) {
	if id == "" {
		return windows.GUID{}, nil
	}
	if id[0] != '{' {
		id = "{" + id + "}"
	}
	g, err := windows.GUIDFromString(id)
	if err != nil {
		return g, fmt.Errorf("%w: %q is no GUID", vss.InvalidArgument, id)
	}
	return g, nil
}
