//go:build windows

// Package com reaches the host's own WMI service through its automation objects (WbemScripting). It converts and calls; what the classes mean is
// not known here.
//
// # Threads
//
// The automation objects live in COM's multithreaded apartment, which exists as long as one thread of the process has joined it. Each session
// has a few operating-system threads of its own that join, make the calls one after another, and leave when the session is closed: a goroutine
// is locked to each, because joining and leaving count by thread. Their number bounds what hangs when WMI does: a call cannot be interrupted, so the
// thread stays with it while the caller, whose context ended, goes on. Nothing is initialized before the first Open, so that a command
// that needs no WMI runs where COM does not.
//
// # Values
//
// Automation knows fewer types than CIM: unsigned integers arrive as signed ones, 64-bit integers as decimal text, every array as one of variants.
// The CIM type of each property decides what a value is, never its variant. An unsigned 64-bit integer beyond the largest int64 becomes that; it is
// how Hyper-V writes "no limit". Reals, which no class that we use has, become text.
//
// # What is taken from github.com/microsoft/wmi
//
// Only pkg/wmiinstance: it connects, gets and queries. Above it, package base/session initializes COM when it is merely linked, and ends the process
// where that fails. Within it, enumerations end without an error when the service goes away in their midst, method calls drop
// errors of parameters, and what is read is not always freed; those parts are written here anew.
package com
