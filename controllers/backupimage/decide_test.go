package backupimage

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

var now = time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC)

type edit = func(*v1alpha1.BackupImage)

// newImage is a usable image that was taken some days ago.
func newImage(name string, days int, edits ...edit) *v1alpha1.BackupImage {
	image := &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: name, UID: types.UID(name), Generation: 1}}
	image.Spec.ImageID = name
	image.Spec.RepositoryRef.Name = "main"
	image.Spec.PolicyName = "gold"
	image.Spec.DeletionPolicy = v1alpha1.DeletionRetain
	image.Spec.Summary.SnapshotTime = metav1.NewTime(now.Add(-time.Duration(days) * 24 * time.Hour))
	image.Spec.Summary.ProtectedBytes, image.Spec.Summary.StoredBytes = 64<<30, 3<<20
	reason(v1alpha1.ConditionReady, "True", v1alpha1.ReasonPublished)(image)
	for _, edit := range edits {
		edit(image)
	}
	return image
}

func reason(kind string, status metav1.ConditionStatus, reason string) edit {
	return func(i *v1alpha1.BackupImage) {
		meta.SetStatusCondition(&i.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: reason})
	}
}

func pinned(i *v1alpha1.BackupImage)   { i.Spec.Pinned = true }
func deletes(i *v1alpha1.BackupImage)  { i.Spec.DeletionPolicy = v1alpha1.DeletionDelete }
func held(i *v1alpha1.BackupImage)     { i.Finalizers = []string{v1alpha1.FinalizerHostClean} }
func gone(i *v1alpha1.BackupImage)     { i.DeletionTimestamp = &metav1.Time{Time: now} }
func request(i *v1alpha1.BackupImage)  { i.Spec.VerifyRequest = "r1" }
func answered(i *v1alpha1.BackupImage) { i.Status.LastVerifyRequest = "r1" }
func recorded(retention v1alpha1.Retention) edit {
	return func(i *v1alpha1.BackupImage) { i.Spec.Retention = &retention }
}

var (
	expiring     = reason(v1alpha1.ConditionReady, "False", v1alpha1.ReasonExpiring)
	deleting     = reason(v1alpha1.ConditionReady, "False", v1alpha1.ReasonDeleting)
	deleteFailed = reason(v1alpha1.ConditionReady, "False", v1alpha1.ReasonDeleteFailed)
	damaged      = reason(v1alpha1.ConditionReady, "False", v1alpha1.ReasonDamaged)
)

func policy(retention *v1alpha1.Retention) *v1alpha1.BackupPolicy {
	policy := &v1alpha1.BackupPolicy{}
	policy.Spec.Retention = retention
	return policy
}

func keep(last int32, age v1alpha1.Age) *v1alpha1.Retention {
	retention := &v1alpha1.Retention{}
	if last > 0 {
		retention.KeepLast = ptr.To(last)
	}
	if age != "" {
		retention.MaxAge = ptr.To(age)
	}
	return retention
}

func series(images ...*v1alpha1.BackupImage) (all []v1alpha1.BackupImage) {
	for _, image := range images {
		all = append(all, *image)
	}
	return all
}

// imported is an image whose record came from the repository so many hours ago.
func imported(hours int) func(*v1alpha1.BackupImage) {
	return func(i *v1alpha1.BackupImage) {
		i.Annotations = map[string]string{v1alpha1.AnnotationImported: "one"}
		i.CreationTimestamp = metav1.NewTime(now.Add(-time.Duration(hours) * time.Hour))
	}
}

func rest(hours int) string {
	return now.Add(time.Duration(hours) * time.Hour).UTC().Format(time.RFC3339)
}

func TestRetention(t *testing.T) {
	three, two, one := newImage("c", 3), newImage("b", 2), newImage("a", 1)
	all := series(three, two, one)
	cases := map[string]struct {
		image   *v1alpha1.BackupImage
		policy  *v1alpha1.BackupPolicy
		series  []v1alpha1.BackupImage
		expired bool
		words   string
	}{
		"without retention images are kept for ever": {three, policy(nil), all, false, "Never"},
		"pinned":                                       {newImage("c", 3, pinned), policy(keep(1, "")), all, false, "Pinned"},
		"beyond the newest two":                        {three, policy(keep(2, "")), all, true, "Expired"},
		"one of the newest two":                        {two, policy(keep(2, "")), all, false, "One of the newest 2"},
		"older than the greatest age":                  {three, policy(keep(0, "2d")), all, true, "Expired"},
		"exactly as old":                               {two, policy(keep(0, "2d")), all, true, "Expired"},
		"not so old yet":                               {two, policy(keep(0, "3d")), all, false, "2026-07-07T12:00:00Z"},
		"both rules must let it go: age keeps it":      {three, policy(keep(1, "4d")), all, false, "2026-07-07T12:00:00Z"},
		"both rules must let it go: number keeps it":   {two, policy(keep(2, "1d")), all, false, "One of the newest 2"},
		"both rules let it go":                         {three, policy(keep(2, "2d")), all, true, "Expired"},
		"the newest never expires (C 50)":              {one, policy(keep(0, "1h")), all, false, "Newest, is kept"},
		"the only one never expires":                   {three, policy(keep(0, "1h")), series(three), false, "Newest, is kept"},
		"a damaged one pushes nothing out":             {two, policy(keep(1, "")), series(two, newImage("a", 1, damaged)), false, "Newest, is kept"},
		"one that is going pushes nothing out":         {two, policy(keep(1, "")), series(two, newImage("a", 1, gone)), false, "Newest, is kept"},
		"of the same time, the names tell":             {newImage("a", 1), policy(keep(1, "")), series(newImage("a", 1), newImage("b", 1)), true, "Expired"},
		"the policy is gone: the recorded age counts":  {newImage("c", 3, recorded(*keep(1, "2d"))), nil, all, true, "Expired"},
		"the policy is gone: the number does not (I8)": {newImage("c", 3, recorded(*keep(1, ""))), nil, all, false, "Never"},
		"the policy is gone: no age is for ever":       {three, nil, all, false, "Never"},
		"the policy's present retention counts":        {newImage("c", 3, recorded(*keep(0, "1d"))), policy(keep(0, "4d")), all, false, "2026-07-07T12:00:00Z"},
		"the policy has none any more: kept for ever":  {newImage("c", 3, recorded(*keep(0, "1d"))), policy(nil), all, false, "Never"},
		"an age that cannot be read deletes nothing":   {three, policy(keep(0, "x")), all, false, "Unknown"},
		"imported just now: pins may come back first":  {newImage("c", 3, imported(0)), policy(keep(0, "1h")), all, false, rest(24)},
		"the number alone does not let it go either":   {newImage("c", 3, imported(0)), policy(keep(1, "")), all, false, rest(24)},
		"imported a day ago: it is as old as it is":    {newImage("c", 3, imported(24)), policy(keep(0, "1h")), all, true, "Expired"},
		"the manager itself is new: nothing is usable": {three, policy(keep(1, "")), nil, false, "Newest, is kept"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			term, _ := judge(c.image, c.policy, c.series, now)
			g.Expect(term.expired).To(Equal(c.expired))
			g.Expect(term.words).To(Equal(c.words))
		})
	}
}

func readyRepository() *v1alpha1.BackupRepository {
	repository := &v1alpha1.BackupRepository{}
	meta.SetStatusCondition(&repository.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: "True"})
	return repository
}

// newTask is a task of the keeper; its verdict is empty while it works, else the reason of its failure, or ok.
func newTask(name string, kind v1alpha1.TaskKind, verdict string, ago time.Duration, action v1alpha1.FailureAction) v1alpha1.AgentTask {
	task := v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AgentTaskSpec{Kind: kind}}
	if verdict == "" {
		return task
	}
	status := metav1.ConditionTrue
	if verdict != "ok" {
		status = "False"
		task.Status.Failure = &v1alpha1.Failure{Reason: verdict, Message: "trouble", Action: action}
	}
	meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSucceeded, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-ago))})
	return task
}

func erasing(attempt int32, verdict string, ago time.Duration) []v1alpha1.AgentTask {
	return []v1alpha1.AgentTask{newTask(eraseName(newImage("c", 3), attempt), v1alpha1.TaskDeleteImage, verdict, ago, v1alpha1.FailureRetry)}
}

func verifying(attempt int32, verdict string, action v1alpha1.FailureAction) []v1alpha1.AgentTask {
	return []v1alpha1.AgentTask{newTask(verifyName(newImage("c", 3, request), attempt), v1alpha1.TaskVerify, verdict, time.Second, action)}
}

func TestDecide(t *testing.T) {
	expire := policy(keep(1, ""))
	forEver := policy(nil)
	newer := newImage("a", 1)
	cases := map[string]struct {
		edits    []edit
		policy   *v1alpha1.BackupPolicy
		tasks    []v1alpha1.AgentTask
		restore  string
		backup   string
		away     bool // the repository
		action   action
		ready    metav1.ConditionStatus
		reason   string
		verified string
		waits    bool
	}{
		"an image that stays": {policy: forEver, ready: "True", reason: v1alpha1.ReasonPublished},

		"it has expired: that is said before anything is done": {policy: expire, ready: "False", reason: v1alpha1.ReasonExpiring},
		"then the keeper is asked":                             {policy: expire, edits: []edit{expiring}, action: erase, ready: "False", reason: v1alpha1.ReasonExpiring},
		"the keeper is at it":                                  {policy: expire, edits: []edit{expiring}, tasks: erasing(1, "", 0), ready: "False", reason: v1alpha1.ReasonExpiring},
		"it is too late for another retention":                 {policy: forEver, edits: []edit{expiring}, tasks: erasing(1, "", 0), ready: "False", reason: v1alpha1.ReasonExpiring},
		"it is not, before the keeper is asked":                {policy: forEver, edits: []edit{expiring}, ready: "True", reason: v1alpha1.ReasonPublished},
		"the data is gone: the object goes":                    {policy: expire, edits: []edit{expiring}, tasks: erasing(1, "ok", 0), action: remove},
		"the keeper could not: the object stays and says so":   {policy: expire, edits: []edit{expiring}, tasks: erasing(1, "AccessDenied", time.Second), ready: "False", reason: v1alpha1.ReasonDeleteFailed, waits: true},
		"it tries again":                                       {policy: expire, edits: []edit{deleteFailed}, tasks: erasing(1, "AccessDenied", time.Minute), action: erase, ready: "False", reason: v1alpha1.ReasonExpiring},
		"it has expired, and is restored from":                 {policy: expire, restore: "r", ready: "True", reason: v1alpha1.ReasonPublished, waits: true},
		"it has expired, and the repository is away":           {policy: expire, away: true, ready: "True", reason: v1alpha1.ReasonPublished, waits: true},
		"pinned, it does not expire":                           {policy: expire, edits: []edit{pinned}, ready: "True", reason: v1alpha1.ReasonPublished},
		"deleted with Retain, nothing is in its way (I8)":      {policy: forEver, edits: []edit{gone}, away: true, ready: "True"},
		"deleted with Retain, a leftover finalizer goes":       {policy: forEver, edits: []edit{gone, held}, away: true, action: letGo},
		"Delete needs the finalizer":                           {policy: forEver, edits: []edit{deletes}, action: hold},
		"Retain does not":                                      {policy: forEver, edits: []edit{held}, action: letGo},
		"deleted with Delete: that is said first":              {policy: forEver, edits: []edit{deletes, held, gone}, ready: "False", reason: v1alpha1.ReasonDeleting},
		"deleted with Delete: the keeper is asked":             {policy: forEver, edits: []edit{deletes, held, gone, deleting}, action: erase, ready: "False", reason: v1alpha1.ReasonDeleting},
		"deleted with Delete: the data is gone":                {policy: forEver, edits: []edit{deletes, held, gone, deleting}, tasks: erasing(1, "ok", 0), action: letGo},
		"deleted with Delete: the repository is away":          {policy: forEver, edits: []edit{deletes, held, gone}, away: true, ready: "True", waits: true},
		"it has expired, and a backup may stand on it (R6)":    {policy: expire, backup: "b", ready: "True", reason: v1alpha1.ReasonPublished, waits: true},
		"deleted with Delete: a restore reads it":              {policy: forEver, edits: []edit{deletes, held, gone}, restore: "r", ready: "True", waits: true},
		"deleted with Delete: it is pinned":                    {policy: forEver, edits: []edit{deletes, held, gone, pinned}, ready: "False", reason: v1alpha1.ReasonRetained},
		"an expired one with a finalizer goes too":             {policy: expire, edits: []edit{deletes, held, expiring}, tasks: erasing(1, "ok", 0), action: remove},

		"verification is asked for":                 {policy: forEver, edits: []edit{request}, action: verify, ready: "True"},
		"verification waits for the repository":     {policy: forEver, edits: []edit{request}, away: true, ready: "True", waits: true},
		"the keeper verifies":                       {policy: forEver, edits: []edit{request}, tasks: verifying(1, "", ""), ready: "True"},
		"it is sound":                               {policy: forEver, edits: []edit{request}, tasks: verifying(1, "ok", ""), ready: "True", verified: "True"},
		"it is damaged, so it cannot be used":       {policy: forEver, edits: []edit{request}, tasks: verifying(1, v1alpha1.ReasonDamaged, v1alpha1.FailureStall), ready: "False", reason: v1alpha1.ReasonDamaged, verified: "False"},
		"its data is missing":                       {policy: forEver, edits: []edit{request}, tasks: verifying(1, v1alpha1.ReasonImageNotFound, v1alpha1.FailureStall), ready: "False", reason: v1alpha1.ReasonDamaged, verified: "False"},
		"verification failed, and is tried again":   {policy: forEver, edits: []edit{request}, tasks: verifying(1, "Net", v1alpha1.FailureRetry), ready: "True", waits: true},
		"verification failed for good":              {policy: forEver, edits: []edit{request}, tasks: verifying(3, "Net", v1alpha1.FailureRetry), ready: "True", verified: "Unknown"},
		"the request was answered":                  {policy: forEver, edits: []edit{request, answered}, ready: "True"},
		"an expired image is not verified any more": {policy: expire, edits: []edit{request, expiring}, action: erase, ready: "False"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			image := newImage("c", 3, c.edits...)
			seen := observation{policy: c.policy, series: series(image, newer), tasks: c.tasks, restore: c.restore, backup: c.backup, repository: readyRepository()}
			if c.away {
				seen.repository = nil
			}
			next := decide(image, seen, now)
			g.Expect(next.action).To(Equal(c.action))
			if c.action == hold || c.action == letGo || c.action == remove {
				return // the status is not written
			}
			ready := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionReady)
			g.Expect(ready.Status).To(Equal(c.ready))
			if c.reason != "" {
				g.Expect(ready.Reason).To(Equal(c.reason))
			}
			g.Expect(next.wait.For > 0).To(Equal(c.waits))
			verified := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionVerified)
			g.Expect(verified != nil).To(Equal(c.verified != ""))
			if verified != nil {
				g.Expect(string(verified.Status)).To(Equal(c.verified))
				g.Expect(next.status.LastVerifyRequest).To(Equal("r1"))
			}
			g.Expect(next.status.Size).To(Equal("64 GiB"))
			g.Expect(next.status.Stored).To(Equal("3.0 MiB"))
		})
	}
}

func TestAnImageWakesWhenItExpires(t *testing.T) {
	g := NewWithT(t)
	image := newImage("c", 3)
	seen := observation{policy: policy(keep(0, "4d")), series: series(image, newImage("a", 1)), repository: readyRepository()}
	next := decide(image, seen, now)
	g.Expect(next.wait.For).To(Equal(24 * time.Hour))
	g.Expect(next.status.ExpireTime.Time).To(Equal(now.Add(24 * time.Hour)))
}

func TestTaskNamesAreStable(t *testing.T) {
	g := NewWithT(t)
	image := newImage("c", 3, request)
	g.Expect(verifyName(image, 1)).To(Equal(verifyName(image, 1)))
	other := newImage("c", 3, func(i *v1alpha1.BackupImage) { i.Spec.VerifyRequest = "r2" })
	g.Expect(verifyName(image, 1)).NotTo(Equal(verifyName(other, 1)), "each request is answered by a task of its own")
	g.Expect(delegation.Attempt(&v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Name: verifyName(image, 3)}})).To(Equal(int32(3)))
}

func TestDamageThatIsFoundInTurn(t *testing.T) {
	share := func(ago time.Duration, others int32, images ...string) *v1alpha1.AgentTask {
		task := newTask("scrub", v1alpha1.TaskScrub, "ok", ago, "")
		task.Status.Scrubbed = &v1alpha1.ScrubResult{OtherImages: others}
		for _, id := range images {
			task.Status.Scrubbed.Images = append(task.Status.Scrubbed.Images, v1alpha1.DamagedImage{ImageID: id, Disks: []string{"disk-0"}, Message: "disk disk-0: 1 MiB of it"})
		}
		return &task
	}
	verifiedAt := func(ago time.Duration) edit {
		return func(i *v1alpha1.BackupImage) {
			i.Status.LastVerifyTime = &metav1.Time{Time: now.Add(-ago)}
		}
	}
	found := func(i *v1alpha1.BackupImage) {
		reason(v1alpha1.ConditionVerified, "False", v1alpha1.ReasonDamageFound)(i)
		i.Status.DamagedDisks = []string{"disk-0"}
	}
	byRequest := reason(v1alpha1.ConditionVerified, "False", v1alpha1.ReasonDamaged)
	for name, c := range map[string]struct {
		edits    []edit
		share    *v1alpha1.AgentTask
		verified string
		disks    int
	}{
		"nothing was verified yet": {},
		"others are damaged":       {share: share(time.Hour, 0, "a")},
		"it is damaged":            {share: share(time.Hour, 0, "a", "c"), verified: "False/DamageFound", disks: 1},
		"it is still":              {edits: []edit{found}, share: share(time.Hour, 0, "c"), verified: "False/DamageFound", disks: 1},
		"it was found damaged before, and no share has looked again": {edits: []edit{found}, verified: "False/DamageFound", disks: 1},
		"a backup has repaired it":                                   {edits: []edit{found}, share: share(time.Hour, 0), verified: "True/Repaired"},
		"it may be one of those that are not named":                  {edits: []edit{found}, share: share(time.Hour, 1), verified: "False/DamageFound", disks: 1},
		"it was read whole since":                                    {edits: []edit{verifiedAt(time.Minute)}, share: share(time.Hour, 0, "c")},
		"it was read whole before":                                   {edits: []edit{verifiedAt(2 * time.Hour)}, share: share(time.Hour, 0, "c"), verified: "False/DamageFound", disks: 1},
		"what was found by reading it whole counts for longer":       {edits: []edit{byRequest, verifiedAt(2 * time.Hour)}, share: share(time.Hour, 0), verified: "False/Damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			image := newImage("c", 3, c.edits...)
			status := decide(image, observation{policy: policy(nil), series: series(image), repository: readyRepository(), share: c.share}, now).status
			got := ""
			if v := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionVerified); v != nil {
				got = string(v.Status) + "/" + v.Reason
			}
			g.Expect(got).To(Equal(c.verified))
			g.Expect(status.DamagedDisks).To(HaveLen(c.disks))
			g.Expect(meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionReady)).To(Equal(strings.HasPrefix(c.verified, "False")))
		})
	}
}
