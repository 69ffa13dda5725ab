package backuprepository

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// changeTask is the task that is due at first, with a verdict unless reason is empty.
func changeTask(r *v1alpha1.BackupRepository, seen observed, made time.Time, reason string) v1alpha1.AgentTask {
	task := shareTask(r, made, reason, nil)
	task.Name = "password-main-" + digest(string(r.UID), seen.credential.version) + "-0"
	task.Spec.Kind = v1alpha1.TaskChangePassword
	return task
}

func TestPasswordIsChanged(t *testing.T) { // R9
	for name, c := range map[string]struct {
		edit    func(given)
		told    string
		asks    bool
		removes int
	}{
		"there is one password": {edit: func(g given) { delete(g.credential.keeper, v1alpha1.SecretKeyPreviousPassword) }},
		"there is one password again": {removes: 1, edit: func(g given) {
			g.changes = []v1alpha1.AgentTask{changeTask(g.BackupRepository, *g.observed, now, v1alpha1.ReasonSucceeded)}
			delete(g.credential.keeper, v1alpha1.SecretKeyPreviousPassword)
		}},
		"the keeper is asked":             {edit: func(given) {}, told: "Unknown/ChangingPassword", asks: true},
		"not before all agents have both": {edit: func(g given) { g.distributed = "" }, told: "Unknown/ChangingPassword"},
		"the keeper is at it":             {edit: changed(now, ""), told: "Unknown/ChangingPassword"},
		"nobody did it in time":           {edit: changed(now.Add(-25*time.Hour), ""), told: "Unknown/ChangingPassword", asks: true, removes: 1},
		"it is changed":                   {edit: changed(now, v1alpha1.ReasonSucceeded), told: "True/PasswordChanged"},
		"neither is the repository's":     {edit: changed(now, v1alpha1.ReasonWrongPassword), told: "False/WrongPassword"},
		"it failed, and is tried again":   {edit: changed(now.Add(-time.Minute), v1alpha1.ReasonRepositoryUnreachable), told: "False/RepositoryUnreachable", asks: true},
		"what was done for another Secret is old": {told: "Unknown/ChangingPassword", asks: true, removes: 1, edit: func(g given) {
			changed(now, v1alpha1.ReasonSucceeded)(g)
			g.changes[0].Name = "password-main-0123456789-0"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r, seen := kept(time.Minute, ago(time.Minute), ago(time.Minute))
			seen.credential.keeper = map[string][]byte{v1alpha1.SecretKeyPassword: []byte("x"), v1alpha1.SecretKeyPreviousPassword: []byte("y")}
			meta.SetStatusCondition(&r.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionPasswordChanged, Status: "True", Reason: "Earlier"})
			c.edit(given{r, &seen})
			next := decide(r, seen, now)
			told := ""
			if found := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionPasswordChanged); found != nil {
				told = string(found.Status) + "/" + found.Reason
				g.Expect(found.Message).NotTo(ContainSubstring("BODY"))
			}
			g.Expect(told).To(Equal(c.told))
			g.Expect(next.change != "").To(Equal(c.asks))
			g.Expect(next.remove).To(HaveLen(c.removes))
		})
	}
}

// given is what a case may change.
type given struct {
	*v1alpha1.BackupRepository
	*observed
}

func changed(made time.Time, reason string) func(given) {
	return func(g given) {
		g.changes = []v1alpha1.AgentTask{changeTask(g.BackupRepository, *g.observed, made, reason)}
	}
}

// Both kinds of agents get both passwords, so that each opens the repository before and after.
func TestBothPasswordsAreGiven(t *testing.T) {
	g := NewWithT(t)
	secret := &corev1.Secret{Data: map[string][]byte{"password": []byte("next"), "previousPassword": []byte("previous"), "other": []byte("x")}}
	given := credentialFrom(secret, v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{}})
	g.Expect(given.agents).To(Equal(map[string][]byte{"password": []byte("next"), "previousPassword": []byte("previous")}))
	g.Expect(given.keeper).To(Equal(given.agents))
	g.Expect(given.changing()).To(BeTrue())
}
