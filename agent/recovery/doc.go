// Package recovery brings disks of an image back into files: VHDX or raw, in parallel, without the parts that are zeros. Every byte that it writes was
// verified when it was read. It knows neither Kubernetes nor Hyper-V, so that an image can be restored where both are gone.
//
// A copy reports which parts are durable. A later copy that is told so goes on from there, whatever happened to the first one: the process or the machine
// may have died at any point.
package recovery
