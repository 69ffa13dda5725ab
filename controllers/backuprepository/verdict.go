package backuprepository

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// verdict is the state of a repository in words.
type verdict struct {
	ready           metav1.ConditionStatus
	reason, message string
	// reconciling says that it changes by itself, stalled that a person must act.
	reconciling, stalled bool
}

func stalled(reason, message string) verdict {
	return verdict{ready: metav1.ConditionFalse, reason: reason, message: message, stalled: true}
}

// tell sets each condition once: setting one twice would move its transition time.
func (v verdict) tell(conditions report.Conditions) {
	switch v.ready {
	case metav1.ConditionTrue:
		conditions.True(v1alpha1.ConditionReady, v.reason, v.message)
	case metav1.ConditionFalse:
		conditions.False(v1alpha1.ConditionReady, v.reason, v.message)
	default:
		conditions.Unknown(v1alpha1.ConditionReady, v.reason, v.message)
	}
	switch {
	case v.stalled:
		conditions.Stalled(v.reason, v.message)
	case v.reconciling:
		conditions.Reconciling(v.reason, v.message)
	default:
		conditions.Settled()
	}
}

// failures are what a probe may fail with. The words are ours: what a store answered stays on the task, where administrators alone read it, for a store
// whose address somebody chose must not speak through a status.
var failures = map[string]verdict{
	v1alpha1.ReasonRepositoryUnreachable: {
		reason: v1alpha1.ReasonRepositoryUnreachable, message: "the keeper cannot reach the repository: check the network, its address, and that its folder is mounted",
	},
	v1alpha1.ReasonDeadlineExceeded: {
		reason: v1alpha1.ReasonRepositoryUnreachable, message: "the repository did not answer in time: check the network and the load of the store",
	},
	v1alpha1.ReasonRepositoryFull: {
		reason: v1alpha1.ReasonRepositoryFull, message: "the repository is full: free space there, or let images expire sooner",
	},
	v1alpha1.ReasonAccessDenied: {
		reason: v1alpha1.ReasonAccessDenied, message: "the repository refuses the credential: correct the Secret, or the rights on the bucket or folder", stalled: true,
	},
	v1alpha1.ReasonWrongPassword: {
		reason: v1alpha1.ReasonWrongPassword, message: "the repository has another password: put the one that it was made with into the Secret", stalled: true,
	},
	v1alpha1.ReasonRepositoryUnusable: {
		reason: v1alpha1.ReasonRepositoryUnusable, message: "what is at the location cannot be used as a repository: correct the location", stalled: true,
	},
	v1alpha1.ReasonObjectLockMissing: {
		reason: v1alpha1.ReasonObjectLockMissing, stalled: true,
		message: "images are to be immutable, and the store cannot lock them: object lock has to be switched on where the bucket is made. " +
			"Declare a repository in another bucket, or one without immutability",
	},
}

// lacking says what it means that a storage lacks something.
var lacking = map[v1alpha1.StorageAbility]string{
	v1alpha1.AbilityReadAfterWrite:      "what was just written, overwritten or deleted is not seen so at once: backups may fail, or be lost",
	v1alpha1.AbilityListAfterWrite:      "what was just written is missing in listings: backups may fail, or be lost",
	v1alpha1.AbilityConditionalCreate:   "it cannot create without overwriting: who adds images can overwrite what is there",
	v1alpha1.AbilityDurableNames:        "it does not sync folders: after a power cut of its server, images that count as stored may be missing",
	v1alpha1.AbilityClock:               "its clock differs from the keeper's: deleted images are not freed from five minutes on, and locks end at the wrong time",
	v1alpha1.AbilityObjectLock:          "what is written cannot be locked",
	v1alpha1.AbilitySeparateCredentials: "agents have the keeper's credential, and with it the right to delete: give the Secret a second one, for the keeper",
}

// harmless may be lacking: it was not asked for, or cannot be had.
func harmless(ability v1alpha1.StorageAbility, spec v1alpha1.BackupRepositorySpec) bool {
	return ability == v1alpha1.AbilityObjectLock && spec.Immutability == nil
}

// depend says whether backups can rely on the storage.
func depend(conditions report.Conditions, repository *v1alpha1.BackupRepository, facts *v1alpha1.StorageFacts) {
	if facts == nil {
		return
	}
	var words []string
	for _, ability := range facts.Lacks {
		if !harmless(ability, repository.Spec) {
			words = append(words, string(ability)+": "+lacking[ability])
		}
	}
	if len(words) > 0 {
		conditions.False(v1alpha1.ConditionDependable, v1alpha1.ReasonLacks, strings.Join(words, ". "))
		return
	}
	conditions.True(v1alpha1.ConditionDependable, v1alpha1.ReasonTested, "the storage has what backups rely on")
}

// withoutAnswer are failures that say nothing of the repository: the next probe will.
var withoutAnswer = map[string]bool{v1alpha1.ReasonSecretNotFound: true, v1alpha1.ReasonCanceled: true, "ClaimLost": true}

// failure says in our own words why a probe failed, and where the keeper's are.
func failure(probe *v1alpha1.AgentTask, undecided verdict) verdict {
	reason := ""
	if probe.Status.Failure != nil {
		reason = probe.Status.Failure.Reason
	}
	if withoutAnswer[reason] {
		return undecided
	}
	said, known := failures[reason]
	if !known {
		said = verdict{reason: v1alpha1.ReasonRepositoryUnusable, message: "the probe failed"}
	}
	said.ready = metav1.ConditionFalse
	said.message += fmt.Sprintf(" (details: AgentTasks in namespace %s)", probe.Namespace)
	return said
}
