package service

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// halted is the service as it was before it was stopped.
type halted struct {
	worked  bool
	command string // "" when there was none
}

// halt stops the service if there is one. What it returns is to be resumed when it fails, too.
func halt(manager *mgr.Mgr) (halted, error) {
	service, err := manager.OpenService(Name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return halted{}, nil
	}
	if err != nil {
		return halted{}, fmt.Errorf("open the service that is installed: %w", err)
	}
	defer service.Close() //nolint:errcheck // a handle
	var before halted
	if before.command, err = commandOf(service); err != nil {
		return halted{}, err
	}
	status, err := service.Query()
	if err != nil {
		return halted{}, fmt.Errorf("ask for the service's state: %w", err)
	}
	before.worked = status.State != svc.Stopped
	return before, stop(service)
}

// resume starts a service anew that worked, as it was.
func (h halted) resume(manager *mgr.Mgr, out io.Writer) error {
	if h.command == "" {
		return nil
	}
	service, err := manager.OpenService(Name)
	if err != nil {
		return fmt.Errorf("open the service that was installed: %w", err)
	}
	defer service.Close() //nolint:errcheck // a handle
	if err := setCommand(service, h.command); err != nil {
		return err
	}
	if !h.worked {
		return nil
	}
	if err := service.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
		return fmt.Errorf("start the service that was installed: %w; it is stopped: try net start %s", err, Name)
	}
	fmt.Fprintf(out, "Service %s is what it was before, and is started again.\n", Name)
	return nil
}

// commandOf is the command line of a service.
func commandOf(service *mgr.Service) (string, error) {
	var needed uint32
	err := windows.QueryServiceConfig(service.Handle, nil, 0, &needed)
	if err == nil || errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
		buffer := make([]byte, needed)
		config := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(unsafe.SliceData(buffer)))
		if err = windows.QueryServiceConfig(service.Handle, config, needed, &needed); err == nil {
			return windows.UTF16PtrToString(config.BinaryPathName), nil
		}
	}
	return "", fmt.Errorf("ask for the service's command: %w", err)
}

func setCommand(service *mgr.Service, command string) error {
	text, err := windows.UTF16PtrFromString(command)
	if err == nil {
		const same = windows.SERVICE_NO_CHANGE
		err = windows.ChangeServiceConfig(service.Handle, same, same, same, text, nil, nil, nil, nil, nil, nil)
	}
	if err != nil {
		return fmt.Errorf("give the service its command back: %w", err)
	}
	return nil
}

// stop ends the service, and returns when its process is gone: until then another one would find the host taken.
func stop(service *mgr.Service) error {
	before, err := service.Query()
	if err != nil {
		return fmt.Errorf("ask for the service's state: %w", err)
	}
	if before.State == svc.Stopped {
		return nil
	}
	process, err := windows.OpenProcess(windows.SYNCHRONIZE, false, before.ProcessId)
	if err != nil && !errors.Is(err, windows.ERROR_INVALID_PARAMETER) { // which says that it is gone already
		return fmt.Errorf("stop the service: open its process: %w", err)
	}
	if err == nil {
		defer windows.CloseHandle(process) //nolint:errcheck // a handle
	}
	if _, err := service.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stop the service: %w", err)
	}
	if process == 0 {
		return nil
	}
	switch event, err := windows.WaitForSingleObject(process, uint32(preshutdown/time.Millisecond)); {
	case err != nil:
		return fmt.Errorf("stop the service: wait for its process: %w", err)
	case event != windows.WAIT_OBJECT_0:
		return fmt.Errorf("stop the service: its process %d did not end within %s", before.ProcessId, preshutdown)
	}
	return nil
}
