package emulator

import (
	"fmt"
	"maps"
	"slices"
)

// replicationState is a state of Hyper-V Replica, as vm.yaml writes it.
type replicationState string

const replicationNormal replicationState = "replicating"

// replicationStates are Msvm_ComputerSystem.ReplicationState and the ReplicationHealth that goes with each: 1 OK, 2 warning, 3 critical.
var replicationStates = map[replicationState][2]int64{
	"ready": {1, 1}, "waitingForInitialReplication": {2, 1}, replicationNormal: {3, 1}, "synced": {4, 1}, "recovered": {5, 2}, "committed": {6, 1},
	"suspended": {7, 2}, "critical": {8, 3}, "waitingToResynchronize": {9, 2}, "resynchronizing": {10, 2}, "resynchronizationSuspended": {11, 2},
	"failoverInProgress": {12, 2}, "failbackInProgress": {13, 2}, "failbackComplete": {14, 1},
}

// replication is the state and the health, zeros without replication.
func (c *vmConfig) replication() (state, health int64) {
	if c.Replica == replicaNone {
		return 0, 0
	}
	both := replicationStates[c.ReplicationState]
	if c.ReplicationState == "" {
		both = replicationStates[replicationNormal]
	}
	return both[0], both[1]
}

func (c *vmConfig) checkReplication() error {
	if _, known := replicationStates[c.ReplicationState]; !known && c.ReplicationState != "" {
		return fmt.Errorf("replicationState: %q is none of %q", c.ReplicationState, slices.Sorted(maps.Keys(replicationStates)))
	}
	if c.ReplicationState != "" && c.Replica == replicaNone {
		return fmt.Errorf("replicationState: the virtual machine has no replica role")
	}
	return nil
}

// onReplicaSide tells that the VM's disks are written by replication, not by a guest.
func (r replicaRole) onReplicaSide() bool {
	return r == replicaReplica || r == replicaTest || r == replicaExtended
}

// excludesBackup tells states in which Hyper-V refuses checkpoints because it changes the disks itself. UNCONFIRMED.
func (s replicationState) excludesBackup() bool {
	return s == "resynchronizing" || s == "failoverInProgress" || s == "failbackInProgress"
}
