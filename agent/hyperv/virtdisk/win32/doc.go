// Package win32 is the virtual-disk calls of the machine that it runs on, through virtdisk.dll. It converts and calls; what the answers mean is not
// its business. Calls of Windows cannot be given up: a context is looked at before each, and a call into a busy cluster volume may take seconds.
package win32
