//go:build !windows

package service

import "context"

// Folder is the folder of an installation.
func Folder() (string, error) { return "", ErrWindowsOnly }

// MakePrivate makes a folder that SYSTEM and Administrators alone may open, or makes sure that one is such.
func MakePrivate(string) error { return ErrWindowsOnly }

func checkFolder(string) error { return ErrWindowsOnly }

func checkFile(string) error { return ErrWindowsOnly }

// Install registers the service and starts it.
func Install(Settings, Installation) error { return ErrWindowsOnly }

// Uninstall stops and removes the service.
func Uninstall(Installation) error { return ErrWindowsOnly }

// Managed says whether the service manager started this process.
func Managed() (bool, error) { return false, nil }

// Serve works under the service manager.
func Serve(context.Context, Work) error { return ErrWindowsOnly }
