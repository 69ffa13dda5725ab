package backuprepository

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// wanting is a ready repository whose import has come so far.
func wanting(edit func(*v1alpha1.CatalogImport)) *v1alpha1.BackupRepository {
	r := repository()
	r.Spec.ImportRequest = "one"
	r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: "True", Reason: v1alpha1.ReasonReachable}}
	r.Status.CatalogImport = &v1alpha1.CatalogImport{Request: "one", After: "m", Total: 9, Made: 3}
	edit(r.Status.CatalogImport)
	return r
}

func asItWas(*v1alpha1.CatalogImport) {}

// pageOf is the task that reads the next page of a repository.
func pageOf(r *v1alpha1.BackupRepository, edit func(*v1alpha1.AgentTask)) v1alpha1.AgentTask {
	task := v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Name: pageName(r, r.Status.CatalogImport)}}
	task.Spec.Kind, task.Spec.Deadline = v1alpha1.TaskSyncCatalog, metav1.NewTime(now.Add(time.Minute))
	edit(&task)
	return task
}

func read(next string) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: "True"})
		t.Status.Catalog = &v1alpha1.CatalogPage{Total: 10, Unreadable: 1, Next: next, Images: []v1alpha1.CatalogEntry{{ImageID: "i"}}}
	}
}

func unread(action v1alpha1.FailureAction, ago time.Duration) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		at := metav1.NewTime(now.Add(-ago))
		meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: "False", LastTransitionTime: at})
		t.Status.CompletionTime = &at
		t.Status.Failure = &v1alpha1.Failure{Reason: "Trouble", Message: "the store answered: BODY", Action: action}
	}
}

func TestImportGoesFromPageToPage(t *testing.T) {
	cases := map[string]struct {
		r        *v1alpha1.BackupRepository
		page     func(*v1alpha1.AgentTask)
		deleting bool
		asks     bool
		places   bool
		state    string
		failures int32
	}{
		"it begins: the status comes first": {r: wanting(func(i *v1alpha1.CatalogImport) { i.Request = "before" }), state: "Unknown/Importing"},
		"a page is asked for":               {r: wanting(asItWas), asks: true, state: "Unknown/Importing"},
		"not while an image is deleted":     {r: wanting(asItWas), deleting: true, state: "Unknown/Importing"},
		"the keeper is at it":               {r: wanting(asItWas), page: func(*v1alpha1.AgentTask) {}, state: "Unknown/Importing"},
		"nobody took it up: a new task is next": {r: wanting(asItWas), state: "Unknown/Importing", failures: 1,
			page: func(t *v1alpha1.AgentTask) { t.Spec.Deadline = metav1.NewTime(now.Add(-time.Minute)) }},
		"a page was read":                {r: wanting(asItWas), page: read("n"), places: true},
		"it could not be: after a pause": {r: wanting(asItWas), page: unread(v1alpha1.FailureRetry, 0), state: "Unknown/Importing"},
		"the pause is over":              {r: wanting(asItWas), page: unread(v1alpha1.FailureRetry, time.Hour), state: "Unknown/Importing", failures: 1},
		"it could not be, five times": {r: wanting(func(i *v1alpha1.CatalogImport) { i.Failures = 4 }), state: "False/ImportFailed", failures: 4,
			page: unread(v1alpha1.FailureRetry, time.Hour)},
		"a person must act": {r: wanting(asItWas), page: unread(v1alpha1.FailureStall, 0), state: "False/ImportFailed"},
		"it was answered":   {r: wanting(func(i *v1alpha1.CatalogImport) { i.CompletionTime = &metav1.Time{Time: now} }), page: read("")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			seen := settled()
			seen.deleting = c.deleting
			if c.page != nil {
				seen.pages = []v1alpha1.AgentTask{pageOf(c.r, c.page)}
			}
			next := decide(c.r, seen, now)
			g.Expect(next.ask != "").To(Equal(c.asks))
			g.Expect(next.place != nil).To(Equal(c.places))
			g.Expect(next.status.CatalogImport.Failures).To(Equal(c.failures))
			state := ""
			if condition := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionImported); condition != nil {
				state = string(condition.Status) + "/" + condition.Reason
				g.Expect(condition.Message).NotTo(ContainSubstring("BODY"), "I7")
			}
			g.Expect(state).To(Equal(c.state))
			g.Expect(decide(c.r, seen, now).ask).To(Equal(next.ask), "asking twice asks once")
		})
	}
}

func TestPagesOfOtherRequestsAreRemoved(t *testing.T) {
	g := NewWithT(t)
	r, seen := wanting(asItWas), settled()
	seen.pages = []v1alpha1.AgentTask{pageOf(r, read("n")), pageOf(wanting(func(i *v1alpha1.CatalogImport) { i.After = "a" }), read("m"))}
	next := decide(r, seen, now)
	g.Expect(next.place).NotTo(BeNil())
	g.Expect(next.remove).To(ConsistOf(HaveField("Name", seen.pages[1].Name)), "the page before is on record")
}

func TestWhatBecameOfAPage(t *testing.T) {
	lost := map[unplaced]int32{{"hr", v1alpha1.ReasonNamespaceNotAllowed}: 2}
	cases := map[string]struct {
		next, state string
		unreadable  int32
		result      placement
		want        v1alpha1.CatalogImport
	}{
		"another page is due":           {next: "n", state: "Unknown/Importing", result: placement{made: 2, present: 1}, want: v1alpha1.CatalogImport{After: "n", Made: 5, Present: 1}},
		"all images have their objects": {state: "True/CatalogImported", result: placement{made: 1}, want: v1alpha1.CatalogImport{Made: 4}},
		"a namespace is not allowed":    {state: "False/ImagesUnplaced", result: placement{unplaced: lost}, want: v1alpha1.CatalogImport{Made: 3}},
		"an image is damaged":           {state: "False/ImagesUnreadable", unreadable: 1, want: v1alpha1.CatalogImport{Made: 3, Unreadable: 1}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r, seen := wanting(asItWas), settled()
			seen.pages = []v1alpha1.AgentTask{pageOf(r, read(c.next))}
			seen.pages[0].Status.Catalog.Unreadable = c.unreadable
			next := decide(r, seen, now)
			next.placed(r, c.result, now)
			got := next.status.CatalogImport
			g.Expect([]any{got.After, got.Made, got.Present, got.Unreadable, got.Total}).To(Equal([]any{c.want.After, c.want.Made, c.want.Present, c.want.Unreadable, int32(10)}))
			g.Expect(got.CompletionTime != nil).To(Equal(c.next == ""))
			condition := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionImported)
			g.Expect(string(condition.Status) + "/" + condition.Reason).To(Equal(c.state))
			if c.result.unplaced != nil {
				g.Expect(condition.Message).To(ContainSubstring("namespace hr (2), which is not among allowedNamespaces"))
			}
		})
	}
}

func TestUnplacedImagesAreCountedToTheLast(t *testing.T) {
	var list []v1alpha1.UnplacedImages
	for i := range 2 * maxUnplaced {
		list = count(list, unplaced{namespace: string(rune('a' + i)), reason: "r"}, 1)
	}
	sum := int32(0)
	for _, u := range list {
		sum += u.Images
	}
	NewWithT(t).Expect([]int{len(list), int(sum)}).To(Equal([]int{maxUnplaced, 2 * maxUnplaced}))
}
