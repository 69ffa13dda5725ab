package service

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// TestMain is also the program that the tests install: the service, and with the argument "hold" one that runs until its input ends.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "run":
		if Serve(context.Background(), untilStopped) != nil {
			os.Exit(failure)
		}
	case len(os.Args) > 1 && os.Args[1] == "hold":
		_, _ = io.Copy(io.Discard, os.Stdin)
	default:
		os.Exit(m.Run())
	}
}

// installed is a machine with the service, which works.
type installed struct {
	*testing.T
	*WithT
	settings Settings
	manager  *mgr.Mgr
	program  string
}

func newInstalled(t *testing.T) *installed {
	if os.Getenv("HYPERKEEP_SHIMS") == "" {
		t.Skip("it installs a service on this machine: test/service runs it on one that is made for it")
	}
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(time.Minute)
	temporary, err := os.MkdirTemp("", "service-") // see TestMakePrivate
	g.Expect(err).NotTo(HaveOccurred())
	folder := filepath.Join(temporary, Name)
	g.Expect(MakePrivate(folder)).To(Succeed())
	for _, name := range []string{settingsFile, "kubeconfig"} {
		g.Expect(os.WriteFile(filepath.Join(folder, name), nil, 0o600)).To(Succeed())
	}
	i := &installed{T: t, WithT: g, settings: DefaultSettings(folder, "hv01")}
	i.program, err = programPath()
	g.Expect(err).NotTo(HaveOccurred())
	i.manager, err = connect()
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = i.manager.Disconnect() })
	g.Expect(Install(i.settings, i.how())).To(Succeed())
	t.Cleanup(func() {
		g.Expect(Uninstall(i.how())).To(Succeed())
		g.Expect(filepath.Dir(i.program)).NotTo(BeADirectory())
	})
	i.works()
	return i
}

func (i *installed) how() Installation {
	return Installation{Folder: i.settings.folder, Start: true, Out: i.Output()}
}

// do calls with the service.
func (i *installed) do(call func(*mgr.Service)) {
	service, err := i.manager.OpenService(Name)
	i.Expect(err).NotTo(HaveOccurred())
	call(service)
	i.Expect(service.Close()).To(Succeed())
}

func (i *installed) works() {
	i.Helper()
	i.do(func(service *mgr.Service) {
		i.Eventually(func() svc.State {
			status, _ := service.Query()
			return status.State
		}).Should(Equal(svc.Running))
	})
}

// stat is of the file itself: os.Stat looks again for what is at its path when it is compared.
func (i *installed) stat() os.FileInfo {
	i.Helper()
	file, err := os.Open(i.program)
	i.Expect(err).NotTo(HaveOccurred())
	info, err := file.Stat()
	i.Expect(err).NotTo(HaveOccurred())
	i.Expect(file.Close()).To(Succeed())
	return info
}

// beside lists what lies beside the program.
func (i *installed) beside() []string {
	all, err := filepath.Glob(filepath.Join(filepath.Dir(i.program), "agent-*"))
	i.Expect(err).NotTo(HaveOccurred())
	return all
}

// A backup's requester may outlive the service for a while, and an administrator may look at the host with the same program. Windows refuses to put another file
// in the place of one that is open, and so does Wine.
func TestServiceIsUpgradedWhileItsProgramRuns(t *testing.T) {
	i := newInstalled(t)
	running := exec.CommandContext(t.Context(), i.program, "hold")
	in, err := running.StdinPipe()
	i.Expect(err).NotTo(HaveOccurred())
	i.Expect(running.Start()).To(Succeed())
	name, err := windows.UTF16PtrFromString(i.program)
	i.Expect(err).NotTo(HaveOccurred())
	image, err := windows.CreateFile(name, windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING, 0, 0)
	i.Expect(err).NotTo(HaveOccurred())

	before := i.stat()
	i.Expect(Install(i.settings, i.how())).To(Succeed())
	i.works()
	i.Expect(os.SameFile(before, i.stat())).To(BeFalse(), "it is the new program")

	i.Expect(windows.CloseHandle(image)).To(Succeed())
	i.Expect(in.Close()).To(Succeed())
	i.Expect(running.Wait()).To(Succeed())
	i.do(func(service *mgr.Service) {
		i.Expect(stop(service)).To(Succeed())
		i.Expect(service.Start()).To(Succeed())
	})
	i.Eventually(i.beside).Should(BeEmpty(), "the next start removes the old program")
}

func TestServiceThatCannotBeUpgradedWorksOn(t *testing.T) {
	i := newInstalled(t)
	garbage := filepath.Join(i.settings.folder, "garbage.exe")
	i.Expect(os.WriteFile(garbage, []byte("no program"), 0o600)).To(Succeed())
	self, err := os.Executable()
	i.Expect(err).NotTo(HaveOccurred())
	name, err := windows.UTF16PtrFromString(i.program)
	i.Expect(err).NotTo(HaveOccurred())
	for _, c := range []struct {
		name, from, says string
		share            uint32
	}{
		{"the new program cannot be started", garbage, "start the service", windows.FILE_SHARE_READ | windows.FILE_SHARE_DELETE},
		{"the old program cannot be moved", self, "set the old program aside", windows.FILE_SHARE_READ},
		{"the new program cannot be read", filepath.Join(i.settings.folder, "nothing.exe"), "copy the program", windows.FILE_SHARE_READ},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewWithT(t)
			before := i.stat()
			held, err := windows.CreateFile(name, windows.GENERIC_READ, c.share, nil, windows.OPEN_EXISTING, 0, 0)
			g.Expect(err).NotTo(HaveOccurred())
			other := i.settings
			other.folder += `\.` // the same in other words, which the service's command would tell
			g.Expect(install(other, i.how(), c.from)).To(MatchError(ContainSubstring(c.says)))
			g.Expect(windows.CloseHandle(held)).To(Succeed())
			i.works()
			g.Expect(os.SameFile(before, i.stat())).To(BeTrue(), "it is the old program")
			g.Expect(i.beside()).To(BeEmpty())
			i.do(func(service *mgr.Service) {
				g.Expect(commandOf(service)).To(Equal(commandLine(append([]string{i.program}, arguments(i.settings)...))))
			})
		})
	}
}
