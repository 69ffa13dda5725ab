package native_test

import (
	"testing"
	"unsafe"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
)

// That a privilege overcomes an access list only Windows can show: Wine asks for the modes of its host's files in their place.
func TestPrivilegesForFilesAreEnabled(t *testing.T) {
	g := NewWithT(t)
	open(t)
	token := windows.GetCurrentProcessToken()
	var size uint32
	_ = windows.GetTokenInformation(token, windows.TokenPrivileges, nil, 0, &size) // tells the size
	buffer := make([]byte, size)
	g.Expect(windows.GetTokenInformation(token, windows.TokenPrivileges, &buffer[0], size, &size)).To(Succeed())
	enabled := map[windows.LUID]bool{}
	for _, p := range (*windows.Tokenprivileges)(unsafe.Pointer(&buffer[0])).AllPrivileges() {
		enabled[p.Luid] = p.Attributes&windows.SE_PRIVILEGE_ENABLED != 0
	}
	for _, name := range hostfs.Privileges {
		wide, err := windows.UTF16PtrFromString(name)
		g.Expect(err).NotTo(HaveOccurred())
		var id windows.LUID
		g.Expect(windows.LookupPrivilegeValue(nil, wide, &id)).To(Succeed())
		g.Expect(enabled[id]).To(BeTrue(), name)
	}
}
