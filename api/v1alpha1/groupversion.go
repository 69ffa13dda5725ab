package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of all kinds here.
var GroupVersion = schema.GroupVersion{Group: "hyperkeep.io", Version: "v1alpha1"}

// AddToScheme registers the kinds of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&BackupPolicy{}, &BackupPolicyList{},
		&BackupJob{}, &BackupJobList{},
		&BackupImage{}, &BackupImageList{},
		&RestoreJob{}, &RestoreJobList{},
		&VirtualMachine{}, &VirtualMachineList{},
		&BackupRepository{}, &BackupRepositoryList{},
		&HyperVHost{}, &HyperVHostList{},
		&HostInventory{}, &HostInventoryList{},
		&AgentTask{}, &AgentTaskList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
