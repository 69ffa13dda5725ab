package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what one process took, all of its threads and children that it waited for included.
type usage struct {
	Wall, CPU     time.Duration
	Peak          int64 // bytes of memory at the most
	Read, Written int64 // bytes through system calls, wherever they went
}

// outcome is what the process that measures tells the one that compares.
type outcome struct {
	Usage  usage
	Output string // of the program, on its standard output
}

// measure runs a program to its end and returns what it printed. Its environment is the caller's, with env in front.
//
// A small process of this same program starts it and watches: Linux counts the memory of who started a program as that program's own.
func measure(ctx context.Context, env []string, dir string, argv ...string) (usage, string, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, "", err
	}
	watcher := exec.CommandContext(ctx, self, append([]string{watch}, argv...)...)
	watcher.Dir = dir
	watcher.Env = append(os.Environ(), env...)
	watcher.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs strings.Builder
	watcher.Stderr = &errs
	out, err := watcher.Output()
	if err != nil {
		return usage{}, "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(errs.String()))
	}
	var found outcome
	if err := json.Unmarshal(out, &found); err != nil {
		return usage{}, "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return found.Usage, found.Output, nil
}

// watch is the argument that makes this program the one that measures.
const watch = "watch"

// runWatch runs a program and prints an outcome.
func runWatch(argv []string) error {
	command := exec.Command(argv[0], argv[1:]...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	command.Stdout, command.Stderr = &out, os.Stderr
	start := time.Now()
	if err := command.Start(); err != nil {
		return err
	}
	// The counters of a process that ended can be read until somebody waits for it.
	if err := ended(command.Process.Pid); err != nil {
		return fmt.Errorf("wait for %s: %w", argv[0], err)
	}
	wall := time.Since(start)
	counters, countersErr := os.ReadFile(fmt.Sprintf("/proc/%d/io", command.Process.Pid))
	if err := errors.Join(command.Wait(), countersErr); err != nil {
		return err
	}
	state := command.ProcessState
	resources, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("this system does not tell how much memory a process took")
	}
	return json.NewEncoder(os.Stdout).Encode(outcome{Output: out.String(), Usage: usage{
		Wall: wall, CPU: state.UserTime() + state.SystemTime(), Peak: resources.Maxrss << 10,
		Read: counter(counters, "rchar"), Written: counter(counters, "wchar"),
	}})
}

// ended returns when a process has ended, and leaves it to be waited for.
func ended(pid int) error {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// counter finds one of the lines of /proc/PID/io.
func counter(lines []byte, name string) int64 {
	found := regexp.MustCompile(`(?m)^` + name + `: (\d+)$`).FindSubmatch(lines)
	if found == nil {
		return 0
	}
	n, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sizeOf is how many bytes the files of a folder have.
func sizeOf(dir string) (int64, error) {
	var total int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return err
	})
	return total, err
}
