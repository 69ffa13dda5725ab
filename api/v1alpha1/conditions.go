package v1alpha1

// Condition types that several kinds share.
const (
	// ConditionReady is True when a long-lived object is accepted and can do its work. It never depends on how a backup went.
	ConditionReady = "Ready"
	// ConditionSucceeded is Unknown while a run goes on, then True or False for ever.
	ConditionSucceeded = "Succeeded"
	// ConditionReconciling is only present while work towards the desired state goes on.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is only present when nothing more happens until a person acts.
	ConditionStalled = "Stalled"
)

// Reasons that several kinds share. Each kind's own stand beside its type.
const (
	ReasonSucceeded            = "Succeeded"
	ReasonProgressing          = "Progressing"
	ReasonCanceled             = "Canceled"
	ReasonDeadlineExceeded     = "DeadlineExceeded"
	ReasonInternalError        = "InternalError"
	ReasonRepositoryNotFound   = "RepositoryNotFound"
	ReasonRepositoryNotAllowed = "RepositoryNotAllowed"
	ReasonRepositoryNotReady   = "RepositoryNotReady"
	ReasonHostNotFound         = "HostNotFound"
	ReasonHostUnreachable      = "HostUnreachable"
	ReasonHostAtLimit          = "HostAtLimit"
	ReasonHostUnschedulable    = "HostUnschedulable"
	ReasonVirtualMachineGone   = "VirtualMachineGone"
	ReasonVirtualMachineBusy   = "VirtualMachineBusy"
	ReasonSharedVolumeBusy     = "SharedVolumeBusy"
	ReasonImageNotFound        = "ImageNotFound"
	ReasonImageMismatch        = "ImageMismatch"
)

// Labels on objects that the manager makes. Children never inherit labels or annotations of their parents.
const (
	// LabelJobUID is the uid of the object that a task was made for; spec.owner names it.
	LabelJobUID = "hyperkeep.io/job-uid"
	// LabelPolicyUID leads from a job to its policy.
	LabelPolicyUID = "hyperkeep.io/policy-uid"
	// LabelRunID is common to the jobs of one run of a policy.
	LabelRunID = "hyperkeep.io/run-id"
	// LabelHost names the host of a task, a virtual machine or an agent's namespace.
	LabelHost = "hyperkeep.io/host"
	// LabelCluster is on tasks that have shared volumes of a failover cluster for themselves: a hash of the cluster's name.
	LabelCluster = "hyperkeep.io/cluster"
	// LabelVirtualMachineID is the Hyper-V id of the virtual machine, in lower case.
	LabelVirtualMachineID = "hyperkeep.io/virtual-machine-id"
	// LabelRepository names the repository that a credential, a task or an image belongs to.
	LabelRepository = "hyperkeep.io/repository"
	// LabelManagedBy marks the namespaces and accounts that the manager made.
	LabelManagedBy = "app.kubernetes.io/managed-by"
)

// ManagedBy is the value of LabelManagedBy.
const ManagedBy = "hyperkeep"

// FinalizerHostClean holds a run or an image until what it left on a host or in a repository is gone.
const FinalizerHostClean = "hyperkeep.io/host-clean"

// AnnotationImported on a BackupImage says that it was made of what the repository says. Its value is the importRequest.
const AnnotationImported = "hyperkeep.io/imported"

// AnnotationAbandon on a run that is being deleted is the way out when its host never comes back: the finalizer goes, and an event records
// what may have been left on the host. Its value is a reason in the person's own words.
const AnnotationAbandon = "hyperkeep.io/abandon"

// AgentNamespacePrefix and the name of a host make the namespace of that host's agent.
const AgentNamespacePrefix = "hyperkeep-host-"

// AgentNamespace is the namespace in which the agent of a host works.
func AgentNamespace(host string) string { return AgentNamespacePrefix + host }

// AgentName is the name of an agent's ServiceAccount, RoleBinding and Lease in its namespace.
const AgentName = "agent"

// EnrollerName is the ServiceAccount with whose one-time token a host enrolls. An administrator makes it in the agent's namespace, and enrolling removes it.
const EnrollerName = "enroller"

// EnrolledName is the Secret that stands for a host's enrolment: it can be made only once, and the agent's tokens are bound to it. Deleting it revokes them.
const EnrolledName = "enrolled"

// SecretTypeEnrolled is the type of the Secret EnrolledName.
const SecretTypeEnrolled = "hyperkeep.io/enrolled"
