package emulator

import "slices"

// Checkpoints are a tree. The branch is the path in it from the VM's disks to a root: the files of those checkpoints are in the chains of the disks, and
// merge into each other when one is removed. The files of the others lie beside.

func (r *vmRecord) snapshot(id string) *snapshotRecord {
	for _, s := range r.Snapshots {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// ancestors are a checkpoint and all that it builds upon, nearest first. None for an id of nobody.
func (r *vmRecord) ancestors(id string) []*snapshotRecord {
	var out []*snapshotRecord
	for s := r.snapshot(id); s != nil && len(out) < maxChain; s = r.snapshot(s.Parent) {
		out = append(out, s)
	}
	return out
}

// branch is the checkpoints that the VM goes on from, nearest first.
func (r *vmRecord) branch() []*snapshotRecord { return r.ancestors(r.Current) }

// below is a checkpoint and all that builds upon it, in an order in which they can be dropped: other branches first, from their ends.
func (r *vmRecord) below(s *snapshotRecord) []*snapshotRecord {
	branch := r.branch()
	var beside, within []*snapshotRecord
	for _, other := range r.Snapshots {
		switch {
		case !slices.Contains(r.ancestors(other.ID), s):
		case slices.Contains(branch, other):
			within = append(within, other)
		default:
			beside = append(beside, other)
		}
	}
	slices.Reverse(beside)
	return append(beside, within...)
}

// successors counts what goes on from a checkpoint: others, and the VM itself.
func (r *vmRecord) successors(s *snapshotRecord) int {
	n := 0
	if r.Current == s.ID {
		n++
	}
	for _, other := range r.Snapshots {
		if other.Parent == s.ID {
			n++
		}
	}
	return n
}

// removable tells whether a checkpoint can go alone. The emulated host merges no file that several others build upon.
func (r *vmRecord) removable(s *snapshotRecord) bool {
	branch := r.branch()
	at := slices.Index(branch, s)
	switch {
	case len(s.Disks) == 0:
		return true
	case at < 0:
		return r.successors(s) == 0
	case r.successors(s) > 1:
		return false
	}
	return at == 0 || r.successors(branch[at-1]) == 1
}

// dropSnapshot removes a checkpoint. What was written after it goes into the file that it froze, or with it at the end of another branch.
func (r *vmRecord) dropSnapshot(s *snapshotRecord) {
	position := slices.Index(r.Snapshots, s)
	if position < 0 {
		return
	}
	branch := r.branch()
	at := slices.Index(branch, s)
	for _, sd := range s.Disks {
		d := r.disk(sd.Path)
		switch {
		case at < 0:
			r.Garbage = append(r.Garbage, sd.Frozen)
		case d != nil:
			r.Merges = append(r.Merges, mergeRecord{Disk: sd.Path, Child: r.above(d, branch[:at]), Parent: sd.Frozen})
		}
	}
	for _, other := range r.Snapshots {
		if other.Parent == s.ID {
			other.Parent = s.Parent
		}
	}
	if r.Current == s.ID {
		r.Current = s.Parent
	}
	r.Snapshots = slices.Concat(r.Snapshots[:position], r.Snapshots[position+1:])
}

// above is the file of a disk that was written after a checkpoint, whose successors in the branch are given, nearest to the VM first.
func (r *vmRecord) above(d *diskRecord, successors []*snapshotRecord) string {
	for _, s := range slices.Backward(successors) {
		if next := s.disk(d.Path); next != nil {
			return next.Frozen
		}
	}
	return d.Leaf
}
