package service

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"gopkg.in/natefinch/lumberjack.v2"
)

// How much of the log is kept: some weeks of an ordinary host.
const (
	logMegabytes = 20
	logFiles     = 5
)

// OpenLog returns where a service writes its log: a file in its folder that is set aside when it has grown large. What the runtime says of a crash goes
// into crash.log beside it, for a service has no standard error.
func (s Settings) OpenLog() (*slog.Logger, io.Closer, error) {
	path := s.LogPath("agent.log")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	crash, err := os.OpenFile(s.LogPath("crash.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	defer crash.Close() //nolint:errcheck // the runtime keeps a handle of its own
	if err := debug.SetCrashOutput(crash, debug.CrashOptions{}); err != nil {
		return nil, nil, fmt.Errorf("open the log of crashes: %w", err)
	}
	file := &lumberjack.Logger{Filename: path, MaxSize: logMegabytes, MaxBackups: logFiles, Compress: true}
	return s.Logger(file), file, nil
}

// Logger writes to out what the settings ask for.
func (s Settings) Logger(out io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: s.LogLevel}))
}
