package preflight

import "github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"

// use is what the agent uses of one class of the host.
type use struct {
	class string
	// lacking says that the agent does without the class: not every version of Windows has it.
	lacking bool
	// reads are the properties that are read or set, and cannot be done without.
	reads []string
	// optional are properties of later versions of Windows, which are used where they exist.
	optional []string
	// methods are the parameters of each method that is called.
	methods map[string][]string
}

// device is what all settings of devices are read by.
var device = []string{"InstanceID", "Parent", "HostResource", "ResourceSubType", "ResourceType", "ElementName"}

func and(names []string, more ...string) []string {
	return append(append([]string{}, names...), more...)
}

// calls lists everything that the agent asks of a host, by namespace. A test reads the agent's code and fails when something is missing here.
var calls = map[string][]use{
	wmi.NamespaceVirtualization: {
		{
			class: "Msvm_ComputerSystem", reads: []string{
				"Name", "ElementName", "EnabledState", "OperationalStatus", "HealthState", "StatusDescriptions",
				"ReplicationMode", "ReplicationState", "ReplicationHealth",
			},
			optional: []string{"LastSuccessfulBackupTime"},
			methods:  map[string][]string{"RequestStateChange": {"RequestedState", "Job"}},
		},
		{
			class: "Msvm_VirtualSystemSettingData",
			reads: []string{
				"InstanceID", "ElementName", "VirtualSystemIdentifier", "VirtualSystemType", "CreationTime", "Parent", "Notes", "Version", "UserSnapshotType",
				"BIOSGUID", "ConfigurationDataRoot", "ConfigurationFile", "SnapshotDataRoot", "SuspendDataRoot", "SwapFileDataRoot",
			},
			optional: []string{"VirtualSystemSubType", "SecureBootEnabled", "SecureBootTemplateId", "AutomaticSnapshotsEnabled", "IsAutomaticSnapshot"},
		},
		{class: "Msvm_StorageAllocationSettingData", reads: and(device, "PersistentReservationsSupported")},
		{class: "Msvm_ResourceAllocationSettingData", reads: and(device, "Address", "AddressOnParent")},
		{class: "Msvm_MemorySettingData", reads: []string{"InstanceID", "VirtualQuantity", "DynamicMemoryEnabled", "Reservation", "Limit", "TargetMemoryBuffer"}},
		{class: "Msvm_ProcessorSettingData", reads: []string{"InstanceID", "VirtualQuantity"}},
		{class: "Msvm_VssComponentSettingData", reads: []string{"InstanceID", "EnabledState"}},
		{class: "Msvm_VssComponent", reads: []string{"SystemName", "OperationalStatus"}},
		{class: "Msvm_SyntheticEthernetPortSettingData", reads: []string{"InstanceID", "ElementName", "Address", "StaticMacAddress", "VirtualSystemIdentifiers"}},
		{class: "Msvm_EmulatedEthernetPortSettingData", reads: []string{"InstanceID", "ElementName", "Address", "StaticMacAddress"}},
		{class: "Msvm_EthernetPortAllocationSettingData", reads: []string{"InstanceID", "Parent", "HostResource", "EnabledState", "LastKnownSwitchName"}},
		{class: "Msvm_SecuritySettingData", lacking: true, reads: []string{"InstanceID", "TpmEnabled", "ShieldingRequested"}},
		{class: "Msvm_FcPortAllocationSettingData", lacking: true, reads: []string{"InstanceID"}},
		{class: "Msvm_PciExpressSettingData", lacking: true, reads: []string{"InstanceID"}},
		{class: "Msvm_GpuPartitionSettingData", lacking: true, reads: []string{"InstanceID"}},
		{class: "Msvm_KvpExchangeComponent", lacking: true, reads: []string{"SystemName", "GuestIntrinsicExchangeItems"}},
		{class: "Msvm_VirtualEthernetSwitch", reads: []string{"Name", "ElementName"}},
		{
			class: "Msvm_VirtualSystemReferencePoint",
			reads: []string{"InstanceID", "VirtualSystemIdentifier", "VirtualDiskIdentifiers", "ResilientChangeTrackingIdentifiers"},
		},
		{
			class: "Msvm_VirtualSystemSnapshotSettingData", reads: []string{"ConsistencyLevel", "IgnoreNonSnapshottableDisks"},
			optional: []string{"GuestBackupType"},
		},
		{
			class: "Msvm_ConcreteJob", reads: []string{"JobState", "ErrorCode"},
			methods: map[string][]string{"RequestStateChange": {"RequestedState"}, "GetErrorEx": {"Errors"}},
		},
		{
			class: "Msvm_VirtualSystemSnapshotService",
			methods: map[string][]string{
				"CreateSnapshot":          {"AffectedSystem", "SnapshotSettings", "SnapshotType", "ResultingSnapshot", "Job"},
				"DestroySnapshot":         {"AffectedSnapshot", "Job"},
				"ConvertToReferencePoint": {"AffectedSnapshot", "ResultingReferencePoint", "Job"},
			},
		},
		{
			class:   "Msvm_VirtualSystemReferencePointService",
			methods: map[string][]string{"DestroyReferencePoint": {"AffectedReferencePoint", "Job"}},
		},
		{
			class: "Msvm_VirtualSystemManagementService",
			methods: map[string][]string{
				"ModifySystemSettings":      {"SystemSettings", "Job"},
				"DefineSystem":              {"SystemSettings", "ResourceSettings", "ResultingSystem", "Job"},
				"DestroySystem":             {"AffectedSystem", "Job"},
				"AddResourceSettings":       {"AffectedConfiguration", "ResourceSettings", "Job"},
				"ModifyResourceSettings":    {"ResourceSettings", "Job"},
				"RemoveResourceSettings":    {"ResourceSettings", "Job"},
				"ImportSystemDefinition":    {"SystemDefinitionFile", "SnapshotFolder", "GenerateNewSystemIdentifier", "ImportedSystem", "Job"},
				"ImportSnapshotDefinitions": {"PlannedSystem", "SnapshotFolder", "Job"},
				"ValidatePlannedSystem":     {"PlannedSystem", "Job"},
				"RealizePlannedSystem":      {"PlannedSystem", "Job"},
			},
		},
		{class: "Msvm_PlannedComputerSystem", reads: []string{"Name", "ElementName"}},
		{class: "Msvm_VirtualSystemManagementCapabilities", lacking: true},
		{class: "Msvm_VirtualSystemSettingDataComponent"},
		{class: "Msvm_SettingsDefineCapabilities"},
		{class: "Msvm_SnapshotOfVirtualSystem"},
		{class: "Msvm_AffectedJobElement"},
	},
	wmi.NamespaceCIMv2: {
		{
			class: "Win32_OperatingSystem",
			reads: []string{"CSName", "Caption", "Version", "BuildNumber", "ProductType", "LocalDateTime", "LastBootUpTime"},
		},
		{class: "Win32_LogicalDisk", reads: []string{"DeviceID", "FreeSpace", "Size", "DriveType"}},
		{
			class: "Win32_Service", reads: []string{"Name", "State", "StartMode"},
			methods: map[string][]string{"StartService": {}},
		},
	},
	wmi.NamespaceCluster: {
		{class: "MSCluster_Cluster", reads: []string{"Name", "BackupInProgress"}, optional: []string{"ClusterFunctionalLevel"}},
		{class: "MSCluster_ClusterSharedVolume", reads: []string{"Name"}},
		{class: "MSCluster_Resource", reads: []string{"Type", "OwnerNode", "OwnerGroup", "PrivateProperties"}},
	},
}
