package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// VSS is the host's Volume Shadow Copy Service, with its Hyper-V writer.
func (h *Host) VSS() vss.Service { return &h.vss }

// Calls and steps that a Fault can make fail; ReturnValue is the HRESULT. Those of the writer leave it failed at that step.
const (
	vssStart    = "StartSnapshotSet"
	vssAdd      = "AddToSnapshotSet"
	vssPrepare  = "PrepareForBackup"
	vssDo       = "DoSnapshotSet"
	vssComplete = "BackupComplete"
	vssDelete   = "DeleteSnapshots"

	writerPrepare = "HyperVWriter.PrepareBackup"
	writerFreeze  = "HyperVWriter.Freeze"
	// writerThaw fails after the snapshot, and leaves a virtual machine that was saved for it saved.
	writerThaw = "HyperVWriter.Thaw"
)

// serviceDisabled is ERROR_SERVICE_DISABLED as an HRESULT: what activating VSS returns then.
const serviceDisabled vss.Code = 0x80070422

// systemProvider is the id of the Microsoft Software Shadow Copy provider, the only one that the host has.
const systemProvider = "B5946137-7B9F-4925-AF80-51ABD60B20D5"

// shadowService is the snapshot sets of a host. None survives it.
type shadowService struct {
	host *Host

	mu     sync.Mutex
	making *shadowSet            // the one that is between StartSnapshotSet and the end of DoSnapshotSet
	sets   map[string]*shadowSet // by id
	device int                   // the last one that was made
}

// shadowSet is the shadow copies of one requester.
type shadowSet struct {
	id      string
	devices map[string]int // by volume
}

// shadowFolder holds the shadow copies, each in a folder by its number.
func (h *Host) shadowFolder() string { return filepath.Join(h.dir, privateFolder, "shadows") }

func (s *shadowService) open(h *Host) error {
	s.host, s.sets = h, map[string]*shadowSet{}
	return os.RemoveAll(h.shadowFolder())
}

// Open implements vss.Service. Activating it starts the service.
func (s *shadowService) Open(ctx context.Context, kind vss.BackupType) (vss.Requester, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := s.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, vss.ErrDisconnected
	}
	if h.disabled["VSS"] {
		return nil, fmt.Errorf("open a VSS requester: %w", serviceDisabled)
	}
	h.services["VSS"] = true
	return &requester{service: s, kind: kind}, nil
}

// Delete implements vss.Service.
func (s *shadowService) Delete(ctx context.Context, setID string) error {
	if err := errors.Join(ctx.Err(), s.host.faults.hresult(vssDelete)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drop(s.sets[strings.ToUpper(setID)])
}

// start makes a new set without volumes. One is made at a time on a host.
func (s *shadowService) start() (*shadowSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making != nil {
		return nil, fmt.Errorf("%s: %w", vssStart, vss.SnapshotSetInProgress)
	}
	set := &shadowSet{id: newGUID(), devices: map[string]int{}}
	s.making, s.sets[set.id] = set, set
	return set, nil
}

// add puts a volume into the set that is being made. On a cluster shared volume no second set is made while the first exists.
func (s *shadowService) add(set *shadowSet, volume string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admits(volume); err != nil {
		return fmt.Errorf("%s %s: %w", vssAdd, volume, err)
	}
	s.device++
	set.devices[volume] = s.device
	return nil
}

// admits tells whether a volume can be in a new set. The caller holds s.mu.
func (s *shadowService) admits(volume string) error {
	if _, _, err := s.host.files.Mapping().Resolve(volume); err != nil || s.host.files.Mapping().VolumeOf(volume) != volume {
		return vss.ObjectNotFound
	}
	if !strings.HasPrefix(volume, sharedVolume) {
		return nil
	}
	for _, other := range s.sets {
		if _, taken := other.devices[volume]; taken {
			return vss.SnapshotSetInProgress
		}
	}
	return nil
}

// made ends the making of a set, whatever came of it.
func (s *shadowService) made(set *shadowSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making == set {
		s.making = nil
	}
}

// drop deletes a set; nil is none. The caller holds s.mu.
func (s *shadowService) drop(set *shadowSet) error {
	if set == nil {
		return nil
	}
	var errs []error
	for _, device := range set.devices {
		errs = append(errs, os.RemoveAll(filepath.Join(s.host.shadowFolder(), strconv.Itoa(device))))
	}
	delete(s.sets, set.id)
	if s.making == set {
		s.making = nil
	}
	return errors.Join(errs...)
}

// ShadowCopies counts the shadow copies that the host has.
func (h *Host) ShadowCopies() int {
	h.vss.mu.Lock()
	defer h.vss.mu.Unlock()
	n := 0
	for _, set := range h.vss.sets {
		n += len(set.devices)
	}
	return n
}

// requester is a backup under way. Beside the methods of vss.Requester it has those that they consist of, one for each call of IVssBackupComponents.
type requester struct {
	service *shadowService
	kind    vss.BackupType
	vm      *vm // whose component is selected; nil leaves the writer out
	set     *shadowSet
	failed  bool
	ready   bool // the shadow copies exist
	taken   time.Time
}

var errOrder = fmt.Errorf("a requester in the wrong state was called: %w", vss.BadState)

// Components implements vss.Requester.
func (r *requester) Components(ctx context.Context) ([]vss.Component, error) {
	h := r.service.host
	if err := errors.Join(ctx.Err(), h.faults.hresult("GatherWriterMetadata")); err != nil {
		return nil, err
	}
	h.scan()
	h.mu.Lock()
	absent := h.config.Edition == "desktop" || !h.services["vmms"]
	out, vms := h.components()
	h.mu.Unlock()
	if absent {
		return nil, vss.ErrNoWriter
	}
	for i, v := range vms {
		for _, path := range h.filesOf(v) {
			folder, name := splitPath(path)
			out[i].Files = append(out[i].Files, vss.FileSpec{Path: folder, Pattern: name, Volume: h.files.Mapping().VolumeOf(path)})
		}
	}
	return out, nil
}

// Begin implements vss.Requester.
func (r *requester) Begin(ctx context.Context, request vss.Request) (string, error) {
	if !request.Uninvolved {
		if err := r.Select(request.Component); err != nil {
			return "", err
		}
	}
	set, err := r.Start(ctx)
	if err != nil {
		return "", err
	}
	for _, volume := range request.Volumes {
		if err := r.Add(ctx, volume, request.Provider); err != nil {
			return "", err
		}
	}
	return set, nil
}

// SetBackupState is the method of that name.
func (r *requester) SetBackupState(kind vss.BackupType) { r.kind = kind }

// Select is AddComponent.
func (r *requester) Select(c vss.Component) error {
	if r.vm = r.service.host.vmOf(c); r.vm == nil {
		return fmt.Errorf("AddComponent %s: %w", c.Name, vss.ObjectNotFound)
	}
	return nil
}

// Start is StartSnapshotSet.
func (r *requester) Start(ctx context.Context) (set string, err error) {
	if r.set != nil || r.failed {
		return "", errOrder
	}
	r.failed = true
	if err := errors.Join(ctx.Err(), r.service.host.faults.hresult(vssStart)); err != nil {
		return "", err
	}
	if r.set, err = r.service.start(); err != nil {
		return "", err
	}
	r.failed = false
	return r.set.id, nil
}

// Add is AddToSnapshotSet.
func (r *requester) Add(ctx context.Context, volume, provider string) error {
	if r.set == nil || r.failed || r.ready {
		return errOrder
	}
	err := errors.Join(ctx.Err(), r.service.host.faults.hresult(vssAdd))
	if err == nil && provider != "" && !strings.EqualFold(provider, systemProvider) {
		err = fmt.Errorf("%s: %w", vssAdd, vss.ProviderNotRegistered)
	}
	if err == nil {
		err = r.service.add(r.set, volume)
	}
	r.failed = err != nil
	return err
}

// vmOf finds the VM of a component. A component of an earlier life of the writer is unknown.
func (h *Host) vmOf(c vss.Component) *vm {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.sortedVMs() {
		if v.record != nil && strings.EqualFold(v.record.ID, c.Name) && strings.EqualFold(c.Writer, h.writerInstance()) {
			return v
		}
	}
	return nil
}

// Complete implements vss.Requester.
func (r *requester) Complete(ctx context.Context, _ bool) error {
	if !r.ready {
		return errOrder
	}
	err := errors.Join(ctx.Err(), r.service.host.faults.hresult(vssComplete))
	if err == nil {
		err = r.service.Delete(ctx, r.set.id)
	}
	if err == nil {
		r.ready = false
	}
	return err
}

// Close implements vss.Requester.
func (r *requester) Close() error {
	r.service.mu.Lock()
	defer r.service.mu.Unlock()
	set := r.set
	r.set, r.ready, r.failed = nil, false, true
	return r.service.drop(set)
}
