// Package hyperv is what the agent knows about Hyper-V: it inventories a host's VMs, takes recovery checkpoints, asks what changed, keeps
// reference points and puts VMs back. It is portable Go over three seams (wmi, virtdisk, hostfs), behind which is a Windows host or the emulated one.
//
// # Repetition
//
// The agent may be killed anywhere. Every method may be called again with the same arguments and then finds what its first call did
// instead of doing it twice. Where Hyper-V itself leaves no trace to find, the method takes a value that the caller wrote to its journal
// beforehand: an Intent for a checkpoint, the frozen disks for a conversion, a Replacement for an in-place restore.
//
// # Ownership
//
// Only what carries our mark is ever changed or deleted: recovery checkpoints by their name, restored VMs by their notes, reference points
// by the caller naming them. Everything else on the host belongs to somebody else. A recovery checkpoint that Hyper-V does not let us name is ours by what
// the caller journaled: its Intent, or the Checkpoint itself.
package hyperv

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Seams are the ways to reach one host.
type Seams struct {
	// Virtualization is a session in wmi.NamespaceVirtualization, CIM one in wmi.NamespaceCIMv2.
	Virtualization wmi.Session
	CIM            wmi.Session
	// Cluster is a session in wmi.NamespaceCluster; nil, or one that answers with any error, on a host outside of failover clusters.
	Cluster wmi.Session
	Disks   virtdisk.Service
	Files   hostfs.FS
	// Attacher reads the disks that we cannot; nil where the host attaches none.
	Attacher virtdisk.Attacher
	// Shadows is the Volume Shadow Copy Service; nil where the method VSS is not to be had.
	Shadows vss.Service
	// Clock paces the waiting for jobs; nothing is decided by it.
	Clock wmi.Clock
}

// Host is one Hyper-V host. It is safe for concurrent use; two calls that change the same VM are the caller's to avoid.
type Host struct {
	virt    wmi.Session
	cim     wmi.Session
	cluster wmi.Session
	disks   virtdisk.Service
	files   hostfs.FS
	clock   wmi.Clock
	// attacher is nil where the host attaches no disks.
	attacher virtdisk.Attacher
	// importing is held while a planned VM exists that has no mark yet. untried, which it guards, has the files that this process prepared to import and
	// nobody tried yet: no planned VM can come of one.
	importing sync.Mutex
	untried   map[string]bool
	// recognized are the checkpoints of ours that Hyper-V did not let us name, by their ids in upper case. recognizing guards it.
	recognizing sync.Mutex
	recognized  map[string]Checkpoint

	shadows    vss.Service
	shadowTurn chan struct{} // held while a snapshot set is made
}

// New makes a Host of its seams. It calls nothing yet.
func New(s Seams) *Host {
	return &Host{
		virt: s.Virtualization, cim: s.CIM, cluster: s.Cluster, disks: s.Disks, files: s.Files, clock: s.Clock, attacher: s.Attacher,
		shadows: s.Shadows, shadowTurn: make(chan struct{}, 1),
		untried: map[string]bool{}, recognized: map[string]Checkpoint{},
	}
}

// The services of Hyper-V, one instance each.
const (
	managementService     = "Msvm_VirtualSystemManagementService"
	snapshotService       = "Msvm_VirtualSystemSnapshotService"
	referencePointService = "Msvm_VirtualSystemReferencePointService"
)

// callService invokes a method of one of the services and waits for its job.
func (h *Host) callService(ctx context.Context, service, method string, in wmi.Params) (wmi.Done, error) {
	found, err := h.virt.Query(ctx, "SELECT * FROM "+service)
	if err != nil {
		return wmi.Done{}, fmt.Errorf("look up %s: %w", service, err)
	}
	if len(found) == 0 {
		return wmi.Done{}, fmt.Errorf("look up %s: %w", service, wmi.ErrNotFound)
	}
	done, err := wmi.Call(ctx, h.virt, h.clock, found[0].Path, method, in)
	return done, classify(err)
}

// results returns what a method made: from its output parameter, or from its job, where Hyper-V leaves that parameter empty.
func (h *Host) results(ctx context.Context, done wmi.Done, parameter, class string) ([]wmi.Instance, error) {
	if done.Job != "" {
		return wmi.Affected(ctx, h.virt, done.Job, class)
	}
	var paths []string
	switch out := done.Out[parameter].(type) {
	case string:
		paths = []string{out}
	case []string:
		paths = out
	}
	var made []wmi.Instance
	for _, path := range paths {
		instance, err := h.virt.Get(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", parameter, err)
		}
		made = append(made, instance)
	}
	return made, nil
}

// one returns the first match of a query and whether there is any.
func (h *Host) one(ctx context.Context, wql string) (wmi.Instance, bool, error) {
	found, err := h.virt.Query(ctx, wql)
	if errors.Is(err, wmi.ErrNotFound) || (err == nil && len(found) == 0) {
		return wmi.Instance{}, false, nil
	}
	if err != nil {
		return wmi.Instance{}, false, err
	}
	return found[0], true, nil
}

// Space tells which volume holds path, which need not exist yet, and what room that has.
func (h *Host) Space(ctx context.Context, path string) (hostfs.Space, error) {
	return h.files.Space(ctx, path)
}
