package wine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

// outputDelay is how long the output of a program that has ended is waited for. Wine's services may have inherited it, and never close it.
const outputDelay = 2 * time.Second

// Prefix is a Windows machine: a folder with its drives and registry, and a wineserver that its programs share. Several may run at once.
type Prefix struct {
	dir   string
	host  string // the folder of the emulated host, "" without one
	shims string
}

// Require skips a test where Wine or the compiler of its DLLs is missing, or fails it if CI is set.
func Require(tb testing.TB) {
	tb.Helper()
	tool.Require(tb, "wine", "wineserver", "setpriv", compiler)
}

// NewPrefix starts a machine whose Hyper-V is the emulated host over hostDir, which serves its shims at an address (shim.AddressPath, 127.0.0.1:PORT). The
// host's volumes are the machine's, but for C:, of which only the folders of Hyper-V are the host's. hostDir may be "" for a machine without a
// host. It ends with the test, and all that runs in it.
func NewPrefix(tb testing.TB, hostDir, shims string) *Prefix {
	tb.Helper()
	Require(tb)
	p, stop, err := start(tb.Context(), tb.TempDir(), hostDir, shims)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

func start(ctx context.Context, dir, hostDir, shims string) (*Prefix, func() error, error) {
	from, err := template(ctx)
	if err != nil {
		return nil, nil, err
	}
	libraries, err := buildShims(ctx)
	if err != nil {
		return nil, nil, err
	}
	p := &Prefix{dir: filepath.Join(dir, "wine"), host: hostDir, shims: shims}
	if err := p.copy(ctx, from, libraries); err != nil {
		return nil, nil, fmt.Errorf("copy the template of Wine: %w", err)
	}
	if hostDir != "" {
		if err := p.attach(hostDir); err != nil {
			return nil, nil, err
		}
	}
	stop, err := p.serve()
	if err != nil {
		return nil, nil, err
	}
	// The first program starts Wine's services, which inherit its output: it has none.
	if err := inPrefix(ctx, p.dir, append([]string{"wine"}, firstProgram()...)...).Run(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start Wine: %w", err), stop())
	}
	return p, stop, nil
}

// firstProgram tells the machine where its programs, and services among them, note what of them is executed, if somebody wants to know.
func firstProgram() []string {
	folder := records("coverage")
	if folder == "" {
		return []string{"cmd", "/c", "exit"}
	}
	environment := `HKLM\System\CurrentControlSet\Control\Session Manager\Environment`
	return []string{"reg", "add", environment, "/v", "GOCOVERDIR", "/d", WindowsPath(folder), "/f"}
}

// copy takes the template's files by hard links where the file system can: they are many, and Wine replaces a file rather than writing into it. The
// registry is copied all the same.
func (p *Prefix) copy(ctx context.Context, from, libraries string) error {
	if _, err := tool.Run(ctx, "cp", "-al", from, p.dir); err != nil {
		if err := os.RemoveAll(p.dir); err != nil {
			return err
		}
		if _, err := tool.Run(ctx, "cp", "-a", from, p.dir); err != nil {
			return err
		}
	}
	hives, err := filepath.Glob(filepath.Join(from, "*.reg"))
	if err != nil {
		return err
	}
	shims, err := filepath.Glob(filepath.Join(libraries, "*.dll"))
	if err != nil {
		return err
	}
	system := p.Local(`C:\windows\system32`)
	if _, err := tool.Run(ctx, "cp", append([]string{"--remove-destination", "--target-directory=" + p.dir}, hives...)...); err != nil {
		return err
	}
	if _, err := tool.Run(ctx, "cp", append([]string{"--remove-destination", "--target-directory=" + system}, shims...)...); err != nil {
		return err
	}
	return os.WriteFile(p.Local(`C:\windows\hyperkeep-shims.txt`), []byte(p.shims), 0o644)
}

// hostFolders are the folders of C: that Hyper-V fills.
var hostFolders = []string{`ProgramData\Microsoft\Windows\Hyper-V`, "ClusterStorage"}

// physicalDrives is how many disks the emulated host can show as \\.\PhysicalDriveN. A link leads nowhere while its disk is not attached.
const physicalDrives = 16

// anew is the machine for the programs that are started from now on, after its host was made anew over the same folder.
func (p *Prefix) anew(shims string) (*Prefix, error) {
	next := &Prefix{dir: p.dir, host: p.host, shims: shims}
	return next, next.attach(next.host)
}

// attach makes the host's volumes the drives of the machine. The host's folder is its D:\VMs.
func (p *Prefix) attach(hostDir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("give Wine the drives of the host: %w", err)
		}
	}()
	hostDir, err = filepath.Abs(hostDir)
	if err != nil {
		return err
	}
	volumes, err := os.ReadDir(filepath.Join(hostDir, ".volumes"))
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.Name() != "C" {
			if err := p.Mount(v.Name(), filepath.Join(hostDir, ".volumes", v.Name())); err != nil {
				return err
			}
		}
	}
	if err := link("../..", filepath.Join(hostDir, ".volumes", "D", "VMs")); err != nil {
		return err
	}
	for n := 1; n < physicalDrives; n++ {
		name := fmt.Sprintf("physicaldrive%d", n)
		if err := link(filepath.Join(hostDir, ".hyperv", "attached", name), filepath.Join(p.dir, "dosdevices", name)); err != nil {
			return err
		}
	}
	for _, folder := range hostFolders {
		target := filepath.Join(hostDir, ".volumes", "C", fromWindows(folder))
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := link(target, p.Local(`C:\`+folder)); err != nil {
			return err
		}
	}
	return nil
}

// link makes a symlink, and its folder. One that is there already stays.
func link(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// Mount makes a local folder a drive of the machine.
func (p *Prefix) Mount(letter, folder string) error {
	return link(folder, filepath.Join(p.dir, "dosdevices", strings.ToLower(letter)+":"))
}

// serve runs the wineserver that outlives each program, so that programs start in a moment. It dies with this process, and the programs with it.
func (p *Prefix) serve() (stop func() error, err error) {
	cmd := inPrefix(context.Background(), p.dir, "setpriv", "--pdeathsig", "KILL", "wineserver", "--foreground", "--persistent")
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread ends that started it, see prctl(2)
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start wineserver: %w", err)
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err := inPrefix(ctx, p.dir, "wineserver", "-k").Run()
		select {
		case <-ended: // by its own kill, as a rule
			return p.crashed()
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wineserver did not end: %w", ctx.Err()), err, cmd.Process.Kill())
		}
	}, nil
}

// crashes is what the debugger writes, which the registry (hyperkeep.reg) has started when a program crashes: one of Wine's own, or another one that does
// not handle that itself, as Go programs do.
const crashes = `C:\windows\crashes.txt`

// crashed returns an error if a program has crashed in the machine, whoever started it.
func (p *Prefix) crashed() error {
	text, err := os.ReadFile(p.Local(crashes))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if told := withoutUSB(string(text)); strings.TrimSpace(told) != "" || err != nil {
		return errors.Join(fmt.Errorf("a program crashed in the machine:\n%s", told), err)
	}
	return nil
}

// withoutUSB leaves out a crash of Wine's own (8.0), which one machine in two hundred has: its host of drivers is told of the USB bus before the driver of that is
// there. No program here needs it.
func withoutUSB(told string) string {
	const report, driver = "Unhandled exception:", `wine_enumerate_root_devices`
	parts := strings.Split(told, report) // before the first there is what has another title
	left := []string{parts[0]}
	for _, crash := range parts[1:] {
		if !strings.Contains(crash, driver) {
			left = append(left, crash)
		}
	}
	return strings.Join(left, report)
}

// Local is where a file of the machine lies. Names are taken as they are written.
func (p *Prefix) Local(windowsPath string) string {
	drive, rest, _ := strings.Cut(windowsPath, ":")
	return filepath.Join(p.dir, "dosdevices", strings.ToLower(drive)+":", fromWindows(rest))
}

func fromWindows(path string) string { return strings.ReplaceAll(path, `\`, "/") }

// WindowsPath is how a program of any prefix reaches a local file.
func WindowsPath(local string) string { return "Z:" + strings.ReplaceAll(local, "/", `\`) }

// Command runs a Windows program, given by its local path, in the machine. The process is the program itself: os.Interrupt reaches it as Ctrl+C, a kill
// is a kill, and the exit code is its own. More environment variables may be appended to Env; the program sees all of them.
func (p *Prefix) Command(ctx context.Context, exe string, args ...string) *exec.Cmd {
	cmd := inPrefix(ctx, p.dir, append([]string{"wine", exe}, args...)...)
	cmd.Env = append(cmd.Env, "HYPERKEEP_SHIMS="+p.shims)
	cmd.WaitDelay = outputDelay
	return cmd
}
