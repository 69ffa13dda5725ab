// Package index names the indexes of the manager's cache, so that no reconcile looks through all objects of a kind, and says what that cache holds.
//
// Each function returns an option for List that finds the objects of one index key. Combine it with client.InNamespace where only one namespace
// may answer. An index lives in the cache: a client that reads from the API server directly refuses these options.
package index

import (
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// The indexes. Their names only need to be unique within a kind.
const (
	taskOwner        = "owner-uid"
	taskMachine      = "virtual-machine-id"
	taskCluster      = "cluster"
	imageMachine     = "virtual-machine-id"
	imageObject      = "virtual-machine"
	imageSeries      = "series"
	imageRepository  = "repository"
	jobMachine       = "virtual-machine"
	jobPolicy        = "policy-uid"
	restoreImage     = "image"
	machineID        = "virtual-machine-id"
	machineHost      = "host"
	inventoryMachine = "virtual-machine-id"
	policyRepository = "repository"
	jobRepository    = "repository"
)

// TasksOf finds the AgentTasks that were made for the object with this uid.
func TasksOf(owner types.UID) client.ListOption {
	return client.MatchingFields{taskOwner: string(owner)}
}

// TasksIn finds the AgentTasks that have shared volumes of the cluster with this label for themselves.
func TasksIn(cluster string) client.ListOption {
	return client.MatchingFields{taskCluster: cluster}
}

// TasksOn finds the AgentTasks that work on the virtual machine with this Hyper-V id, on whatever host.
func TasksOn(virtualMachineID string) client.ListOption {
	return client.MatchingFields{taskMachine: virtualMachineID}
}

// ImagesOf finds the BackupImages of the virtual machine with this Hyper-V id.
func ImagesOf(virtualMachineID string) client.ListOption {
	return client.MatchingFields{imageMachine: virtualMachineID}
}

// ImagesOfObject finds the BackupImages of the VirtualMachine object of this name, which need not exist any more. Names are unique within a namespace only.
func ImagesOfObject(virtualMachine string) client.ListOption {
	return client.MatchingFields{imageObject: virtualMachine}
}

// ImagesOfSeries finds the BackupImages that retention counts together: those of one virtual machine (by its Hyper-V id), policy (by name; empty
// for images without one) and repository.
func ImagesOfSeries(virtualMachineID, policy, repository string) client.ListOption {
	return client.MatchingFields{imageSeries: series(virtualMachineID, policy, repository)}
}

// ImagesIn finds the BackupImages of a repository.
func ImagesIn(repository string) client.ListOption {
	return client.MatchingFields{imageRepository: repository}
}

// JobsOf finds the BackupJobs for the VirtualMachine object of this name. Names are unique within a namespace only.
func JobsOf(virtualMachine string) client.ListOption {
	return client.MatchingFields{jobMachine: virtualMachine}
}

// JobsOfPolicy finds the BackupJobs that the policy with this uid made.
func JobsOfPolicy(policy types.UID) client.ListOption {
	return client.MatchingFields{jobPolicy: string(policy)}
}

// JobsInto finds the BackupJobs whose images go to a repository.
func JobsInto(repository string) client.ListOption {
	return client.MatchingFields{jobRepository: repository}
}

// RestoresOf finds the RestoreJobs that have chosen, or name, the BackupImage of this name, or the image of this id. Names are unique within a namespace only.
func RestoresOf(image string) client.ListOption {
	return client.MatchingFields{restoreImage: image}
}

// PoliciesInto finds the BackupPolicies whose images go to a repository.
func PoliciesInto(repository string) client.ListOption {
	return client.MatchingFields{policyRepository: repository}
}

// VirtualMachinesByID finds the VirtualMachine objects with this Hyper-V id: several when placement rules changed.
func VirtualMachinesByID(id string) client.ListOption {
	return client.MatchingFields{machineID: id}
}

// VirtualMachinesOn finds the VirtualMachine objects that a host has, or had last.
func VirtualMachinesOn(host string) client.ListOption {
	return client.MatchingFields{machineHost: host}
}

// InventoriesWith finds the HostInventory parts, of whatever host, that list the virtual machine with this Hyper-V id.
func InventoriesWith(virtualMachineID string) client.ListOption {
	return client.MatchingFields{inventoryMachine: virtualMachineID}
}

// InventoriesOf finds all HostInventory parts of a host. They need no index: an agent's namespace has those of its host only.
func InventoriesOf(host string) client.ListOption {
	return client.InNamespace(v1alpha1.AgentNamespace(host))
}

// series joins with a character that no Kubernetes name and no id has.
func series(virtualMachineID, policy, repository string) string {
	return strings.Join([]string{virtualMachineID, policy, repository}, "/")
}
