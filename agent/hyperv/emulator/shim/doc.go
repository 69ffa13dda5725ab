// Package shim answers the DLLs of test/wine/shim, which stand in for Hyper-V's under Wine, out of an emulated host. The DLLs know nothing of
// Hyper-V: each call of theirs is one request to here.
//
// # The protocol
//
// A DLL keeps a pool of TCP connections on the loopback interface, so that its threads do not wait for each other. All numbers are little-endian. A
// frame is a uint32 with the length of its payload, and the payload: values, one after the other. A value is its VARTYPE as a uint16, a uint32 with
// the length of its data, and the data.
//
// The first frame of a connection is the hello: the name of a service (see service.go), a uint64 that all connections of one process have in common,
// the process id as a uint32, and whether this is the connection of the process's presence. It has no answer. A request is the name of the function
// as text and its arguments; the answer is the function's return value as a uint32, a Win32 code or an HRESULT as the function has it, and what the
// function gives back.
//
// A process is there while it has a connection. What it held when its last one ends is given back, as Windows does. The end of its presence, on which
// nothing is sent, ends the others: the socket of a process that was killed while it sent stays open in Wine's server (8.0: between send_socket and
// set_async_direct_result).
package shim
