package agenttask

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

var now = time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC)

// newTask is made at a time before now, in minutes.
func newTask(kind v1alpha1.TaskKind, name string, made int, edits ...func(*v1alpha1.AgentTask)) *v1alpha1.AgentTask {
	task := &v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AgentTaskSpec{Kind: kind}}
	task.CreationTimestamp = metav1.NewTime(now.Add(-time.Duration(made) * time.Minute))
	if kind == v1alpha1.TaskRelease {
		task.Spec.Release = &v1alpha1.ReleaseTask{Tag: "t1"}
	}
	for _, edit := range edits {
		edit(task)
	}
	return task
}

func finished(minutes int) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: "False",
			LastTransitionTime: metav1.NewTime(now.Add(-time.Duration(minutes) * time.Minute))})
	}
}

func canceled(t *v1alpha1.AgentTask) { t.Spec.Cancel = true }
func otherTag(t *v1alpha1.AgentTask) { t.Spec.Release.Tag = "t2" }

func newJob(verdict metav1.ConditionStatus, finalizers ...string) *v1alpha1.BackupJob {
	job := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Finalizers: finalizers}}
	meta.SetStatusCondition(&job.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: verdict})
	return job
}

func TestDecide(t *testing.T) {
	const backup, release, verify = v1alpha1.TaskBackup, v1alpha1.TaskRelease, v1alpha1.TaskVerify
	running, dirty, clean := newJob("Unknown"), newJob("True", v1alpha1.FinalizerHostClean), newJob("True")
	cases := map[string]struct {
		task    *v1alpha1.AgentTask
		owner   client.Object
		sibling *v1alpha1.AgentTask
		want    next
	}{
		"its owner is gone: the agent is told to stop": {task: newTask(backup, "a-1", 60), want: next{action: cancel}},
		"it was told":                                                         {task: newTask(backup, "a-1", 60, canceled)},
		"its owner is gone, and it has ended":                                 {task: newTask(backup, "a-1", 60, finished(0)), want: next{action: sweep}},
		"it is live, and so is its owner":                                     {task: newTask(backup, "a-1", 60), owner: running},
		"an owner that fell silent leaves its task to itself":                 {task: newTask(backup, "a-1", 60), owner: clean},
		"the verdict is not on record yet":                                    {task: newTask(backup, "a-1", 60, finished(30)), owner: running},
		"the host is not clean: what is left there is known by the task (I4)": {task: newTask(backup, "a-1", 60, finished(30)), owner: dirty},
		"people may read it for a while":                                      {task: newTask(backup, "a-1", 60, finished(4)), owner: clean, want: next{action: later, after: 6 * time.Minute}},
		"then it goes":                                                        {task: newTask(backup, "a-1", 60, finished(10)), owner: clean, want: next{action: sweep}},
		"an older attempt stays with its run":                                 {task: newTask(backup, "a-1", 60, finished(30)), owner: running, sibling: newTask(backup, "a-2", 1)},
		"the newest try to clean up stays, to be counted on":                  {task: newTask(release, "r-1", 60, finished(30)), owner: dirty},
		"an older one goes":                                                   {task: newTask(release, "r-1", 60, finished(30)), owner: dirty, sibling: newTask(release, "r-2", 1), want: next{action: sweep}},
		"but not for one that cleans up after another attempt":                {task: newTask(release, "r-1", 60, finished(30)), owner: dirty, sibling: newTask(release, "r-2", 1, otherTag)},
		"the newest task of an image stays":                                   {task: newTask(verify, "v-1", 60, finished(30)), owner: &v1alpha1.BackupImage{}},
		"an older one of an image goes":                                       {task: newTask(verify, "v-1", 60, finished(30)), owner: &v1alpha1.BackupImage{}, sibling: newTask(verify, "v-2", 60), want: next{action: sweep}},
		"a task of another kind is no successor":                              {task: newTask(verify, "v-1", 60, finished(30)), owner: &v1alpha1.BackupImage{}, sibling: newTask(v1alpha1.TaskDeleteImage, "d-2", 1)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			seen := observation{owner: c.owner, siblings: []v1alpha1.AgentTask{*c.task}}
			if c.sibling != nil {
				seen.siblings = append(seen.siblings, *c.sibling)
			}
			NewWithT(t).Expect(decide(c.task, seen, now)).To(Equal(c.want))
		})
	}
}
