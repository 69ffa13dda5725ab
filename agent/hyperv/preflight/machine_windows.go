package preflight

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk/win32"
)

// privileges are those that the seams to this machine enable.
var privileges = slices.Concat([]string{win32.AttachPrivilege}, hostfs.Privileges)

// exports are the functions of Windows that no package of Go's declares and that older or smaller Windows lack.
var exports = map[string][]string{
	"virtdisk.dll": {
		"OpenVirtualDisk", "AttachVirtualDisk", "DetachVirtualDisk", "GetVirtualDiskPhysicalPath",
		"GetVirtualDiskInformation", "SetVirtualDiskInformation", "QueryChangesVirtualDisk",
	},
}

// ThisMachine tells about this process.
func ThisMachine() Machine { return thisMachine{} }

type thisMachine struct{}

func (thisMachine) Facts(context.Context) (Facts, error) {
	facts := Facts{Platform: runtime.GOOS + "/" + runtime.GOARCH, Exports: map[string]bool{}}
	for library, functions := range exports {
		dll := windows.NewLazySystemDLL(library)
		for _, function := range functions {
			facts.Exports[library+"!"+function] = dll.NewProc(function).Find() == nil
		}
	}
	token := windows.GetCurrentProcessToken()
	facts.Elevated = token.IsElevated()
	var err error
	if facts.Account, err = account(token); err != nil {
		return Facts{}, err
	}
	facts.Privileges, err = held(token)
	return facts, err
}

func account(token windows.Token) (string, error) {
	user, err := token.GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("read the account of this process: %w", err)
	}
	name, domain, _, err := user.User.Sid.LookupAccount("")
	if err != nil {
		return user.User.Sid.String(), nil //nolint:nilerr // an account without a name has its id
	}
	return domain + `\` + name, nil
}

// held tells which of the privileges that we need the token has.
func held(token windows.Token) (map[string]bool, error) {
	var size uint32
	// The first call fails by design: it tells the size.
	_ = windows.GetTokenInformation(token, windows.TokenPrivileges, nil, 0, &size)
	buffer := make([]byte, max(size, uint32(unsafe.Sizeof(windows.Tokenprivileges{}))))
	if err := windows.GetTokenInformation(token, windows.TokenPrivileges, &buffer[0], uint32(len(buffer)), &size); err != nil {
		return nil, fmt.Errorf("read the privileges of this process: %w", err)
	}
	present := map[windows.LUID]bool{}
	for _, p := range (*windows.Tokenprivileges)(unsafe.Pointer(&buffer[0])).AllPrivileges() {
		present[p.Luid] = true
	}
	out := map[string]bool{}
	for _, name := range privileges {
		text, err := windows.UTF16PtrFromString(name)
		if err != nil {
			return nil, err
		}
		var id windows.LUID
		if err := windows.LookupPrivilegeValue(nil, text, &id); err != nil {
			return nil, fmt.Errorf("look up %s: %w", name, err)
		}
		out[name] = present[id]
	}
	return out, nil
}
