package runner

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func newProbeTask(t *testing.T, c client.Client) *v1alpha1.AgentTask {
	t.Helper()
	task := &v1alpha1.AgentTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t, c), Name: "probe"},
		Spec: v1alpha1.AgentTaskSpec{
			Kind: v1alpha1.TaskProbe, Deadline: metav1.NewTime(time.Now().Add(time.Hour)),
			Owner: v1alpha1.TaskOwner{Kind: "BackupRepository", Name: "main", UID: "1"},
			Repository: &v1alpha1.TaskRepository{
				Name: "main", SecretName: "repository-main",
				Location: v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: "/backups"}},
			},
		},
	}
	if err := c.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	return task
}

func read(t *testing.T, c client.Client, task *v1alpha1.AgentTask) *v1alpha1.AgentTask {
	t.Helper()
	now := &v1alpha1.AgentTask{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(task), now); err != nil {
		t.Fatal(err)
	}
	return now
}

func reportStaysWithinLimits(t *testing.T, c client.Client) {
	task := newProbeTask(t, c)
	report := newReport(c, clock.RealClock{}, task)
	for i := range 2 * maxSteps {
		if err := report.Step(t.Context(), fmt.Sprintf("Step%d", i)); err != nil {
			t.Fatal(err)
		}
		report.Note("%s", strings.Repeat("é", 2*maxMessage))
		report.Warn("Warning", "%d %s", i, strings.Repeat("ö", 2000))
	}
	if err := report.Finish(t.Context(), errors.New(strings.Repeat("x", 5000))); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, task).Status; len(got.Steps) != maxSteps || len(got.Warnings) != maxWarnings {
		t.Errorf("%d steps and %d warnings were recorded", len(got.Steps), len(got.Warnings))
	}
}

func reportOnDeletedTask(t *testing.T, c client.Client) {
	task := newProbeTask(t, c)
	if err := c.Delete(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	report := newReport(c, clock.RealClock{}, task)
	if err := report.Step(t.Context(), "Probe"); !errors.Is(err, errTaskGone) {
		t.Errorf("got %v", err)
	}
}

func reportVerdict(t *testing.T, c client.Client) {
	cases := map[string]struct {
		err    error
		status metav1.ConditionStatus
		reason string
		action v1alpha1.FailureAction
	}{
		"success":                   {nil, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, ""},
		"a wrong password":          {fmt.Errorf("open: %w", image.ErrWrongPassword), metav1.ConditionFalse, v1alpha1.ReasonWrongPassword, v1alpha1.FailureStall},
		"a repository that is away": {image.ErrUnreachable, metav1.ConditionFalse, v1alpha1.ReasonRepositoryUnreachable, v1alpha1.FailureRetry},
		"what nobody foresaw":       {errors.New("boom"), metav1.ConditionFalse, v1alpha1.ReasonFailed, v1alpha1.FailureRetry},
		"a failure with its words":  {fmt.Errorf("x: %w", stall("FolderTaken", errors.New("taken"))), metav1.ConditionFalse, "FolderTaken", v1alpha1.FailureStall},
		"a release that failed too": {errors.Join(errCanceled, errors.New("boom")), metav1.ConditionFalse, v1alpha1.ReasonCanceled, v1alpha1.FailureStall},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			task := newProbeTask(t, c)
			if err := newReport(c, clock.RealClock{}, task).Finish(t.Context(), want.err); err != nil {
				t.Fatal(err)
			}
			got := read(t, c, task)
			verdict := apimeta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionSucceeded)
			if verdict == nil || verdict.Status != want.status || verdict.Reason != want.reason || !finished(got) {
				t.Fatalf("the verdict is %+v", verdict)
			}
			if want.err != nil && got.Status.Failure.Action != want.action {
				t.Errorf("the failure is %+v", got.Status.Failure)
			}
		})
	}
}

func reportTakenUpAgain(t *testing.T, c client.Client) {
	task := newProbeTask(t, c)
	first := newReport(c, clock.RealClock{}, task)
	if err := errors.Join(first.Claim(t.Context(), "one"), first.Step(t.Context(), "Probe")); err != nil {
		t.Fatal(err)
	}
	second := newReport(c, clock.RealClock{}, read(t, c, task))
	if err := second.Claim(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	got := read(t, c, task).Status
	claimed := apimeta.FindStatusCondition(got.Conditions, v1alpha1.ConditionClaimed)
	if got.SessionID != "two" || len(got.Steps) != 0 || !strings.Contains(claimed.Message, "started anew") {
		t.Errorf("the status is %+v", got)
	}
}
