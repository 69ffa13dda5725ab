// Package wine runs Windows programs on Linux, in a Wine that has an emulated Hyper-V host in place of Hyper-V: stand-ins for Hyper-V's DLLs, which are
// compiled from shim/, forward every call to the host (agent/hyperv/emulator/shim).
//
// Each Prefix is a Windows machine of its own, copied from a template that is kept in the user's cache folder. Its D: and further volumes are
// those of the emulated host.
package wine
