package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of a BackupPolicy.
const (
	// ConditionRPOMet says whether every selected virtual machine has an image younger than objectives.rpo. Absent without that objective.
	ConditionRPOMet = "RPOMet"

	ReasonScheduled            = "Scheduled"
	ReasonSuspended            = "Suspended"
	ReasonInvalidSchedule      = "InvalidSchedule"
	ReasonNoVirtualMachines    = "NoVirtualMachinesSelected"
	ReasonRPOMet               = "Met"
	ReasonRPOMissed            = "Missed"
	ReasonNeverBackedUp        = "NeverBackedUp"
	ReasonRunStarted           = "RunStarted"
	ReasonJobNameTaken         = "JobNameTaken"
	ReasonSelectionUnknownName = "SelectionNamesUnknownVirtualMachine"
)

// BackupPolicySpec says what to protect, when, how, where to, and for how long.
//
// +kubebuilder:validation:XValidation:rule="!has(self.schedules) || !self.schedules.exists(s, s.type == 'ForcedRescan') || (has(self.changeTracking) && self.changeTracking.accelerator)",message="a ForcedRescan schedule needs changeTracking.accelerator: without it every run reads everything already"
// +kubebuilder:validation:XValidation:rule="!has(self.runNow) || self.runNow.type != 'ForcedRescan' || (has(self.changeTracking) && self.changeTracking.accelerator)",message="runNow with type ForcedRescan needs changeTracking.accelerator: without it every run reads everything already"
type BackupPolicySpec struct {
	BackupSettings `json:",inline"`

	// selection says which virtual machines of this namespace are protected. It is evaluated anew at each run.
	// +required
	Selection Selection `json:"selection,omitzero"`

	// schedules start runs. Without any, only runNow does.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Schedules []Schedule `json:"schedules,omitempty"`

	// suspend stops schedules and runNow; jobs that were made already go on. What was missed meanwhile is not caught up.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// runNow starts one run whenever its token changes. It works from Git too: a token that was seen before starts nothing.
	// +optional
	RunNow *RunNow `json:"runNow,omitempty"`

	// objectives are what this policy promises, and is measured by.
	// +optional
	Objectives *Objectives `json:"objectives,omitempty"`

	// startDeadlineSeconds is how late a run may start: how long a job may wait for its host, and how old a missed schedule may be.
	// +optional
	// +kubebuilder:default=21600
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=604800
	StartDeadlineSeconds int32 `json:"startDeadlineSeconds,omitempty"`

	// runDeadlineSeconds is how long a job may take once it was placed.
	// +optional
	// +kubebuilder:default=86400
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=604800
	RunDeadlineSeconds int32 `json:"runDeadlineSeconds,omitempty"`

	// attempts is how often a job tries when the failure may go away by itself.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Attempts int32 `json:"attempts,omitempty"`

	// history says how many finished jobs of each virtual machine are kept. Deleting a job deletes no image.
	// +optional
	// +kubebuilder:default={}
	History JobHistory `json:"history,omitzero"`
}

// Selection of virtual machines, in exactly one way.
// +kubebuilder:validation:ExactlyOneOf=all;names;selector
type Selection struct {
	// all selects every virtual machine of the namespace, those that come later too.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self",message="all can only be true: leave it out to select by names or selector"
	All *bool `json:"all,omitempty"`

	// names selects VirtualMachine objects by name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=500
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Names []string `json:"names,omitempty"`

	// selector selects VirtualMachine objects by label.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Schedule starts runs at certain times.
type Schedule struct {
	// name of the schedule, unique in the policy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// cron has five fields: minute, hour, day of month, month, day of week; or a word such as @daily.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="!self.contains('TZ=')",message="name the time zone in timeZone, not in cron"
	Cron string `json:"cron,omitempty"`

	// timeZone is an IANA name such as Europe/Berlin or UTC.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`

	// type of the runs.
	// +optional
	// +kubebuilder:default=Auto
	Type RunType `json:"type,omitempty"`
}

// RunNow starts one run for each new token.
type RunNow struct {
	// token is any text that was not used before, such as a date.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Token string `json:"token,omitempty"`

	// type of the run.
	// +optional
	// +kubebuilder:default=Auto
	Type RunType `json:"type,omitempty"`
}

// Objectives are what a policy promises.
type Objectives struct {
	// rpo is the recovery point objective: how old the newest image of a virtual machine may become, counted from its checkpoint.
	// +required
	RPO Age `json:"rpo,omitempty"`
}

// JobHistory says how many finished jobs are kept for each virtual machine.
type JobHistory struct {
	// succeeded jobs to keep.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Succeeded int32 `json:"succeeded,omitempty"`
	// failed jobs to keep.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Failed int32 `json:"failed,omitempty"`
}

// BackupPolicyStatus is what the policy did, and how well it keeps its promise.
type BackupPolicyStatus struct {
	// conditions are Ready, RPOMet, Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// virtualMachines is how many are selected.
	// +optional
	// +kubebuilder:validation:Minimum=0
	VirtualMachines *int32 `json:"virtualMachines,omitempty"`

	// compliance is how many of them meet the RPO, such as 41/42.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Compliance string `json:"compliance,omitempty"`

	// schedules holds the last slot of each schedule that was run or passed over, so that none runs twice.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Schedules []ScheduleStatus `json:"schedules,omitempty"`

	// nextRunTime is when the next schedule is due.
	// +optional
	NextRunTime *metav1.Time `json:"nextRunTime,omitempty"`

	// lastRunToken is the runNow token that was acted on last.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	LastRunToken string `json:"lastRunToken,omitempty"`

	// lastRun is the newest run.
	// +optional
	LastRun *PolicyRun `json:"lastRun,omitempty"`
}

// ScheduleStatus is what one schedule did.
type ScheduleStatus struct {
	// name of the schedule.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	Name string `json:"name,omitempty"`
	// lastSlot is the newest time of the schedule that was run or passed over.
	// +required
	LastSlot metav1.Time `json:"lastSlot,omitzero"`
}

// PolicyRun sums up the jobs of one run.
type PolicyRun struct {
	// id is common to the jobs of the run (label hyperkeep.io/run-id).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ID string `json:"id,omitempty"`
	// time at which the run was due.
	// +required
	Time metav1.Time `json:"time,omitzero"`
	// jobs of the run that still exist.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Jobs int32 `json:"jobs,omitempty"`
	// succeeded of them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Succeeded int32 `json:"succeeded,omitempty"`
	// failed of them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed,omitempty"`
}

// BackupPolicy says what to protect, when, how, where to, and for how long, and shows how well that works.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvbp,categories=hyperv
// +kubebuilder:printcolumn:name="Schedule",type=string,JSONPath=`.spec.schedules[*].cron`
// +kubebuilder:printcolumn:name="Repository",type=string,JSONPath=`.spec.repositoryRef.name`
// +kubebuilder:printcolumn:name="VMs",type=integer,JSONPath=`.status.virtualMachines`
// +kubebuilder:printcolumn:name="RPO",type=string,JSONPath=`.spec.objectives.rpo`
// +kubebuilder:printcolumn:name="Compliant",type=string,JSONPath=`.status.compliance`
// +kubebuilder:printcolumn:name="Last Run",type=date,JSONPath=`.status.lastRun.time`
// +kubebuilder:printcolumn:name="Next Run",type=string,JSONPath=`.status.nextRunTime`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 40",message="the name of a policy has at most 40 characters, so that the names of its jobs fit"
type BackupPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what is wanted.
	// +required
	Spec BackupPolicySpec `json:"spec,omitzero"`
	// status is what was done.
	// +optional
	Status BackupPolicyStatus `json:"status,omitzero"`
}

// BackupPolicyList is a list of policies.
// +kubebuilder:object:root=true
type BackupPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackupPolicy `json:"items"`
}
