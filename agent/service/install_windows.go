package service

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

const (
	displayName = "Hyperkeep agent"
	description = "Backs up and restores the Hyper-V virtual machines of this host, as the cluster that it is enrolled in says."
	// preshutdown is how long Windows waits for the agent before it shuts the other services down.
	preshutdown = stopLimit + 15*time.Second
	// settled is how long an agent works until earlier failures are forgotten.
	settled = 24 * time.Hour
)

// dependencies are started first. Hyper-V's own service is not among them: the agent would be stopped with it whenever an administrator restarts it, and
// the agent finds it again by itself. WMI has to be there in any case, and Hyper-V depends on it too.
var dependencies = []string{"Winmgmt"}

// recovery is what the service manager does when the agent fails for the first, the second and any further time.
var recovery = []mgr.RecoveryAction{
	{Type: mgr.ServiceRestart, Delay: 5 * time.Second}, {Type: mgr.ServiceRestart, Delay: 30 * time.Second}, {Type: mgr.ServiceRestart, Delay: 2 * time.Minute},
}

// Install registers the service, or brings the one that is there up to date with this program and starts it anew. When that fails, the service is as it was
// before, and works if it did.
func Install(settings Settings, how Installation) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return install(settings, how, self)
}

// install is Install with the program in a file.
func install(settings Settings, how Installation, from string) error {
	if err := settings.CheckPrivate(); err != nil {
		return err
	}
	manager, err := connect()
	if err != nil {
		return err
	}
	defer manager.Disconnect() //nolint:errcheck // a handle
	program, err := stageProgram(from)
	if err != nil {
		return err
	}
	before, err := halt(manager)
	if err == nil {
		err = renew(manager, program, settings, how)
	}
	if err == nil {
		removeReplaced()
		return nil
	}
	err = errors.Join(err, program.revert())
	removeBeside(program.path, freshProgram)
	return errors.Join(err, before.resume(manager, how.Out))
}

// renew has the service, which does not run, be of the new program.
func renew(manager *mgr.Mgr, program *program, settings Settings, how Installation) error {
	if err := program.swap(); err != nil {
		return err
	}
	service, err := register(manager, program.path, settings)
	if err != nil {
		return err
	}
	defer service.Close() //nolint:errcheck // a handle
	if err := configure(service, program.path, settings, how.Out); err != nil {
		return err
	}
	if err := addSource(); err != nil {
		return err
	}
	fmt.Fprintf(how.Out, "Service %s is installed and runs %s.\n", Name, program.path)
	if !how.Start {
		return nil
	}
	if err := service.Start(); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	fmt.Fprintf(how.Out, "It is started. It logs to %s.\n", settings.LogPath("agent.log"))
	return nil
}

// Uninstall stops and removes the service and its event source. Data stay unless they are to be purged. It may be run again.
func Uninstall(how Installation) error {
	manager, err := connect()
	if err != nil {
		return err
	}
	defer manager.Disconnect() //nolint:errcheck // a handle
	service, err := manager.OpenService(Name)
	switch {
	case errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST):
		fmt.Fprintf(how.Out, "There is no service %s.\n", Name)
	case err != nil:
		return fmt.Errorf("open the service: %w", err)
	default:
		if err := errors.Join(stop(service), service.Delete(), service.Close()); err != nil {
			return fmt.Errorf("remove the service: %w", err)
		}
		fmt.Fprintf(how.Out, "Service %s is removed.\n", Name)
	}
	if err := eventlog.Remove(Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the source of events: %w", err)
	}
	return errors.Join(removeProgram(how.Out), removeData(how))
}

func connect() (*mgr.Mgr, error) {
	manager, err := mgr.Connect()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("connect to the service manager: %w: run this as administrator", err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the service manager: %w", err)
	}
	return manager, nil
}

// register makes the service unless it is there.
func register(manager *mgr.Mgr, program string, settings Settings) (*mgr.Service, error) {
	service, err := manager.OpenService(Name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		service, err = manager.CreateService(Name, program, mgr.Config{DisplayName: displayName}, arguments(settings)...)
	}
	if err != nil {
		return nil, fmt.Errorf("make the service: %w", err)
	}
	return service, nil
}

// arguments of the program when it is the service.
func arguments(settings Settings) []string {
	return []string{"run", "--service", "--data-dir", settings.folder}
}

// configure brings everything about the service up to date. A setting that Windows does not know is said and left out.
func configure(service *mgr.Service, program string, settings Settings, out io.Writer) error {
	wait := uint32(preshutdown / time.Millisecond)
	for _, setting := range []struct {
		what string
		set  func() error
	}{
		{"delayed start", func() error {
			return service.UpdateConfig(mgr.Config{
				ServiceType: windows.SERVICE_WIN32_OWN_PROCESS, StartType: mgr.StartAutomatic, ErrorControl: mgr.ErrorNormal, DelayedAutoStart: true,
				DisplayName: displayName, Description: description, Dependencies: dependencies, ServiceStartName: "LocalSystem",
				BinaryPathName: commandLine(append([]string{program}, arguments(settings)...)),
			})
		}},
		{"a restart when it fails", func() error { return service.SetRecoveryActions(recovery, uint32(settled/time.Second)) }},
		// Without this, only a process that dies counts as failed.
		{"a restart when it gives up", func() error { return service.SetRecoveryActionsOnNonCrashFailures(true) }},
		{"time to stop before a shutdown", func() error {
			return windows.ChangeServiceConfig2(service.Handle, windows.SERVICE_CONFIG_PRESHUTDOWN_INFO, (*byte)(unsafe.Pointer(&wait)))
		}},
	} {
		err := setting.set()
		if errors.Is(err, windows.ERROR_INVALID_LEVEL) {
			fmt.Fprintf(out, "This Windows does not offer: %s.\n", setting.what)
			continue
		}
		if err != nil {
			return fmt.Errorf("configure the service (%s): %w", setting.what, err)
		}
	}
	return nil
}

func commandLine(arguments []string) string {
	for i, argument := range arguments {
		arguments[i] = windows.EscapeArg(argument)
	}
	return strings.Join(arguments, " ")
}

// addSource registers the source of events.
func addSource() error {
	err := eventlog.InstallAsEventCreate(Name, eventlog.Info|eventlog.Warning|eventlog.Error)
	if err != nil && !strings.Contains(err.Error(), "already exists") { // the package has no name for this error
		return fmt.Errorf("register the source of events: %w", err)
	}
	return nil
}

// removeData removes the folder of the installation if that is wanted.
func removeData(how Installation) error {
	if !how.Purge {
		fmt.Fprintf(how.Out, "%s stays: it has the settings, the token and the journal of what the agent left on this host.\n", how.Folder)
		return nil
	}
	if err := os.RemoveAll(how.Folder); err != nil {
		return fmt.Errorf("remove the data: %w", err)
	}
	fmt.Fprintf(how.Out, "%s is removed.\n", how.Folder)
	return nil
}
