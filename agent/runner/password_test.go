package runner

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// credential writes the copies of the agents.
func (r *rig) credential(values map[string]string) {
	r.t.Helper()
	for _, namespace := range []string{v1alpha1.AgentNamespace(hostName), "keeper"} {
		secret := &corev1.Secret{}
		if err := r.client.Get(r.t.Context(), client.ObjectKey{Namespace: namespace, Name: "repository-main"}, secret); err != nil {
			r.t.Fatal(err)
		}
		secret.Data = map[string][]byte{}
		for key, value := range values {
			secret.Data[key] = []byte(value)
		}
		if err := r.client.Update(r.t.Context(), secret); err != nil {
			r.t.Fatal(err)
		}
	}
}

// R9: backups go on before, between and after; a wrong password is a failure that says so.
func TestPasswordChangesWhileBackupsGoOn(t *testing.T) {
	r := newRig(t)
	const previous, next = "correct horse", "battery staple"
	change := func(name string) *v1alpha1.AgentTask {
		return r.do("keeper", name, v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskChangePassword})
	}
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	r.credential(map[string]string{"password": next, "previousPassword": "a guess"})
	if failure := change("wrong").Status.Failure; failure == nil || failure.Reason != v1alpha1.ReasonWrongPassword {
		t.Errorf("%+v", failure)
	}
	r.credential(map[string]string{"password": next, "previousPassword": previous})
	wantSuccess(t, r.backup("before"))
	wantSuccess(t, change("change"))
	wantSuccess(t, r.backup("between"))
	wantSuccess(t, change("again"))
	r.credential(map[string]string{"password": next})
	wantSuccess(t, r.backup("after"))
	wantSuccess(t, r.do("keeper", "verify", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskVerify, Image: &v1alpha1.ImageTask{ImageID: "first"}}))
	r.credential(map[string]string{"password": previous})
	if failure := r.backup("late").Status.Failure; failure == nil || failure.Reason != v1alpha1.ReasonWrongPassword {
		t.Errorf("%+v", failure)
	}
}
