package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// ErrNotInWriter means that the Hyper-V VSS writer does not offer the VM for backup. Recovery checkpoints through WMI may still work.
var ErrNotInWriter = errors.New("the Hyper-V VSS writer does not offer the virtual machine")

// How long the steps of a shadow copy may take: the writer lists, freezes and, for a VM that it saves, writes all of its memory.
const (
	metadataLimit = 5 * time.Minute
	snapshotLimit = 20 * time.Minute
	// setLimit is how long another backup's snapshot set is waited for, looking every setPause.
	setLimit = 10 * time.Minute
	setPause = 5 * time.Second
)

// Shadow is a backup of one VM through VSS: opened, begun, snapped, read, completed and closed. It is not for concurrent use. Its shadow copies end with it.
type Shadow struct {
	host      *Host
	options   ShadowOptions
	vm        VM
	requester vss.Requester
	component vss.Component
	making    bool // holds the host's turn to make a snapshot set
	approach  ShadowApproach
	intent    ShadowIntent
	snapshot  vss.Snapshot
}

// ShadowIntent is what the caller writes to its journal before Snapshot: enough for a next session to put right what a killed one left. It is a plain value.
type ShadowIntent struct {
	// SetID is the snapshot set, whose shadow copies end with the process that made them.
	SetID string `json:"setID"`
	// State is the VM's before the snapshot: the one that it must have again (NV-08).
	State State `json:"state"`
	// Settled says that the VM has it again: from then on its state is its user's.
	Settled bool `json:"settled,omitempty"`
}

// ShadowOptions say how shadow copies are made. The zero value is a full backup by the provider that Windows chooses.
type ShadowOptions struct {
	// Provider is the id of the VSS provider that makes the shadow copies, "" for the one that Windows chooses.
	Provider string
	// CopyOnly asks the guest's applications to leave their logs alone. Otherwise they may truncate them.
	CopyOnly bool
}

func (o ShadowOptions) backupType() vss.BackupType {
	if o.CopyOnly {
		return vss.Copy
	}
	return vss.Full
}

// OpenShadow finds the VM, as the caller has looked at it, at the Hyper-V VSS writer. Nothing happens to it. ErrNotInWriter, vss.ErrNoWriter, ErrVMNotFound.
func (h *Host) OpenShadow(ctx context.Context, vm VM, options ShadowOptions) (*Shadow, error) {
	if h.shadows == nil {
		return nil, fmt.Errorf("open a shadow copy: %w", ErrVSSUnavailable)
	}
	s := &Shadow{host: h, options: options, vm: vm}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open a shadow copy of %s: %w", vm.Name, err), s.Close())
	}
	return s, nil
}

// open asks the writer with a new requester.
func (s *Shadow) open(ctx context.Context) (err error) {
	if s.requester, err = s.host.shadows.Open(ctx, s.options.backupType()); err != nil {
		return shadowFailure(err)
	}
	limited, cancel := context.WithTimeout(ctx, metadataLimit)
	defer cancel()
	offered, err := s.requester.Components(limited)
	if err != nil {
		return shadowFailure(err)
	}
	var found bool
	if s.component, found = vss.Find(offered, s.vm.ID); !found {
		return fmt.Errorf("%w: it lists %d others", ErrNotInWriter, len(offered))
	}
	return nil
}

// lookAgain replaces what was seen of the VM, and of what the writer offers, by what they are now. ErrBusy when the caller's choice of an approach would not
// hold any more.
func (s *Shadow) lookAgain(ctx context.Context) error {
	// A requester that failed is good for nothing else.
	mode := s.Mode()
	if err := errors.Join(s.requester.Close(), s.open(ctx)); err != nil {
		return err
	}
	was := s.vm
	now, err := s.host.vm(ctx, was.ID)
	if err != nil {
		return err
	}
	could, _ := Quiescible(was)
	can, _ := Quiescible(now)
	switch {
	case now.State != was.State:
		return fmt.Errorf("%w: it was %s when it was looked at, and is %s now", ErrBusy, strings.ToLower(string(was.State)), strings.ToLower(string(now.State)))
	case could != can, mode != s.Mode():
		return fmt.Errorf("%w: whether its guest can quiesce has changed since it was looked at", ErrBusy)
	}
	s.vm = now
	return nil
}

// Mode is how the writer would back the VM up.
func (s *Shadow) Mode() vss.Mode { return s.component.Mode() }

// Begin starts the snapshot set. Nothing happens to the VM yet: the caller journals the intent, then calls Snapshot. It waits while another backup makes a
// set, for that one at a time is made on a host; the intent is of the VM as it is afterwards. ErrBusy, also when the VM's state or its guest's ability to
// quiesce is not what the approach was chosen for, ErrForeignCheckpoint, vss.ProviderNotRegistered.
func (s *Shadow) Begin(ctx context.Context, approach ShadowApproach) (ShadowIntent, error) {
	if err := s.takeTurn(ctx); err != nil {
		return ShadowIntent{}, err
	}
	for waited := time.Duration(0); ; waited += setPause {
		if err := s.lookAgain(ctx); err != nil {
			return ShadowIntent{}, fmt.Errorf("begin a shadow copy of %s: %w", s.vm.Name, err)
		}
		intent, err := s.begin(ctx, approach)
		if err == nil || !errors.Is(err, vss.SnapshotSetInProgress) || waited >= setLimit {
			return intent, err
		}
		select {
		case <-ctx.Done():
			return ShadowIntent{}, context.Cause(ctx)
		case <-s.host.clock.After(setPause):
		}
	}
}

func (s *Shadow) begin(ctx context.Context, approach ShadowApproach) (ShadowIntent, error) {
	if err := unattended(s.vm); err != nil {
		return ShadowIntent{}, fmt.Errorf("shadow copy of %s: %w", s.vm.Name, err)
	}
	volumes, err := s.volumes()
	if err != nil {
		return ShadowIntent{}, fmt.Errorf("begin a shadow copy of %s: %w", s.vm.Name, err)
	}
	set, err := s.requester.Begin(ctx, vss.Request{
		Component: s.component, Uninvolved: approach.Uninvolved, Volumes: volumes, Provider: s.options.Provider,
	})
	if err != nil {
		return ShadowIntent{}, fmt.Errorf("begin a shadow copy of %s: %w", s.vm.Name, shadowFailure(err))
	}
	s.intent, s.approach = ShadowIntent{SetID: set, State: s.vm.State}, approach
	return s.intent, nil
}

// takeTurn makes this the one backup of the host that makes a snapshot set.
func (s *Shadow) takeTurn(ctx context.Context) error {
	select {
	case s.host.shadowTurn <- struct{}{}:
		s.making = true
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Shadow) endTurn() {
	if s.making {
		<-s.host.shadowTurn
		s.making = false
	}
}

// Taken is a snapshot that was made.
type Taken struct {
	Time time.Time
	// Level is what the disks are: that of the approach, but of a VM that was switched on meanwhile.
	Level Level
	// Interruption is how long the VM was seen not to run, Saved that it was seen in the saved state: its memory is in the image then.
	Interruption time.Duration
	Saved        bool
}

// Snapshot makes the shadow copies, and brings the VM back into the state that it had before it returns: also when it fails, when ctx ended, and when the
// writer left the VM saved (NV-06, NV-07). After an error only Close is left. ErrQuiesce with what the writer said, ErrBusy, ErrNoSpace.
func (s *Shadow) Snapshot(ctx context.Context) (Taken, error) {
	defer s.endTurn()
	watch := s.host.watchState(ctx, s.vm)
	limited, cancel := context.WithTimeout(ctx, snapshotLimit)
	defer cancel()
	snapshot, err := s.requester.Snapshot(limited)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	settling, done := context.WithTimeout(context.WithoutCancel(ctx), snapshotLimit)
	defer done()
	settled := s.host.SettleShadow(settling, s.vm.ID, s.intent)
	taken := watch.end()
	if err != nil || settled != nil {
		return Taken{}, errors.Join(writerFailure(err), settled)
	}
	s.snapshot, taken.Time = snapshot, snapshot.Taken
	taken.Level, err = s.level(ctx, taken.Saved)
	return taken, err
}

// writerFailure finds the meaning of a failed snapshot. What the writer reports is, but for a lack of resources, about the guest.
func writerFailure(err error) error {
	writer, isWriter := errors.AsType[*vss.WriterError](err)
	switch {
	case err == nil:
		return nil
	case isWriter && writer.State == vss.FailedAtFreeze, isWriter && writer.Code == vss.WriterTimeout:
		return fmt.Errorf("%w: %w", ErrQuiesce, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no shadow copy within the time allowed: %w", ErrQuiesce, err)
	}
	return fmt.Errorf("shadow copy: %w", shadowFailure(err))
}

// level looks at the VM once more. It must still be what was looked at in Begin: a disk that was attached in between would be in no list, and one that a
// checkpoint froze would have been read without what the guest wrote after it.
func (s *Shadow) level(ctx context.Context, saved bool) (Level, error) {
	// Off or saved, the VM gets no checkpoint of the writer.
	own := !s.approach.Uninvolved && s.approach.Level != Offline && !saved
	now, err := s.host.vm(ctx, s.vm.ID)
	for n := 0; err == nil && n < len(s.vm.Disks) && !s.same(now, own); n++ {
		now, err = s.host.vm(ctx, s.vm.ID) // the merge of a disk may have ended between the look at the VM and that at the file
	}
	switch {
	case err != nil:
		return "", err
	case !s.same(now, own):
		return "", fmt.Errorf("%w: a checkpoint or a disk was added or removed during the snapshot", ErrBusy)
	case s.approach.Level == Offline && now.State != Off:
		return Crash, nil
	}
	return s.approach.Level, nil
}

// same tells whether the VM has the checkpoints and the disks that it had. With own, the writer may have made a recovery checkpoint of its own, right above
// the disks, which it removes and merges afterwards.
func (s *Shadow) same(now VM, own bool) bool {
	if !slices.Equal(userCheckpoints(now), userCheckpoints(s.vm)) || !own && len(now.recoveryCheckpoints()) > 0 || len(now.Disks) != len(s.vm.Disks) {
		return false
	}
	for _, d := range now.Disks {
		was, found := s.vm.Disk(d.Key)
		if !found || d.Kind != was.Kind {
			return false
		}
		above := own && (d.Kind != DiskVHDX || strings.EqualFold(d.parent, was.Path)) // a disk in another format is not in the image
		if !strings.EqualFold(d.Path, was.Path) && !above {
			return false
		}
	}
	return true
}

func userCheckpoints(vm VM) []string {
	var ids []string
	for _, node := range vm.Checkpoints {
		if node.Kind != CheckpointRecovery {
			ids = append(ids, node.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Complete tells the writer how the backup ended, and deletes the shadow copies.
func (s *Shadow) Complete(ctx context.Context, succeeded bool) error {
	if err := s.requester.Complete(ctx, succeeded); err != nil {
		return fmt.Errorf("complete the shadow copy: %w", shadowFailure(err))
	}
	return nil
}

// Close ends the backup and with it the shadow copies, in whatever state it is. A second call does nothing.
func (s *Shadow) Close() error {
	s.endTurn()
	if s.requester == nil {
		return nil
	}
	requester := s.requester
	s.requester = nil
	return requester.Close()
}
