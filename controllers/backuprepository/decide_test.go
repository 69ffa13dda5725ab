package backuprepository

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
)

// now is ten seconds into an interval of five minutes.
var now = time.Date(2026, 11, 22, 10, 0, 10, 0, time.UTC)

func repository() *v1alpha1.BackupRepository {
	return &v1alpha1.BackupRepository{
		ObjectMeta: metav1.ObjectMeta{Name: "main", UID: "r1", Generation: 2},
		Spec:       v1alpha1.BackupRepositorySpec{SecretName: "main-secret", ProbeIntervalSeconds: 300},
	}
}

// settled is a repository whose credential is everywhere and whose keeper lives.
func settled() observed {
	seen := observed{
		credential: credential{version: "s1/7", agents: map[string][]byte{"password": []byte("x")}},
		keeper:     liveness.Pulse{State: liveness.Alive, Until: now.Add(40 * time.Second)},
	}
	seen.distributed = mark(repository(), seen, now)
	return seen
}

// probeOf returns the probe that is due at a moment, with a verdict unless reason is empty.
func probeOf(seen observed, at time.Time, reason string) v1alpha1.AgentTask {
	seen.probes = nil
	task := v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{
		Name: decide(repository(), seen, at).probe, Namespace: "hyperkeep-keeper", CreationTimestamp: metav1.NewTime(at),
	}}
	task.Spec.Deadline = metav1.NewTime(at.Add(probeDeadline))
	if reason == "" {
		return task
	}
	status := metav1.ConditionFalse
	if reason == v1alpha1.ReasonSucceeded {
		status = metav1.ConditionTrue
		task.Status.Probe = &v1alpha1.ProbeResult{RepositoryID: "k1", Images: 3, StoredBytes: 5 << 30, FreeBytes: ptr.To(int64(1 << 40))}
	} else {
		task.Status.Failure = &v1alpha1.Failure{Reason: reason, Message: "the store answered: BODY"}
	}
	task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSucceeded, Status: status, Reason: reason}}
	task.Status.CompletionTime = ptr.To(metav1.NewTime(at.Add(time.Second)))
	return task
}

func TestDecide(t *testing.T) {
	const interval = 300 * time.Second
	thisOne := func(reason string) func(*v1alpha1.BackupRepository, *observed) {
		return func(_ *v1alpha1.BackupRepository, s *observed) {
			s.probes = []v1alpha1.AgentTask{probeOf(*s, now, reason)}
		}
	}
	both := func(before, after string) func(*v1alpha1.BackupRepository, *observed) {
		return func(_ *v1alpha1.BackupRepository, s *observed) {
			s.probes = []v1alpha1.AgentTask{probeOf(*s, now.Add(-interval), before), probeOf(*s, now, after)}
		}
	}
	cases := map[string]struct {
		given      func(*v1alpha1.BackupRepository, *observed)
		ready      string
		summary    string
		probes     bool
		removes    int
		distribute bool
	}{
		"no probe yet: one is due": {
			given: func(*v1alpha1.BackupRepository, *observed) {},
			ready: "Unknown/Probing", summary: "Reconciling", probes: true,
		},
		"the probe of this interval is pending":   {given: thisOne(""), ready: "Unknown/Probing", summary: "Reconciling"},
		"the probe of this interval succeeded":    {given: thisOne(v1alpha1.ReasonSucceeded), ready: "True/Reachable"},
		"a new probe is pending, the last counts": {given: both(v1alpha1.ReasonSucceeded, ""), ready: "True/Reachable"},
		"a new verdict replaces the last":         {given: both(v1alpha1.ReasonSucceeded, v1alpha1.ReasonRepositoryFull), ready: "False/RepositoryFull", removes: 1},
		"the last interval's probe succeeded: the next is due": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) {
				s.probes = []v1alpha1.AgentTask{probeOf(*s, now.Add(-interval), v1alpha1.ReasonSucceeded)}
			},
			ready: "True/Reachable", probes: true,
		},
		"unreachable is no stall":                 {given: thisOne(v1alpha1.ReasonRepositoryUnreachable), ready: "False/RepositoryUnreachable"},
		"no answer in time is unreachable":        {given: thisOne(v1alpha1.ReasonDeadlineExceeded), ready: "False/RepositoryUnreachable"},
		"full is no stall":                        {given: thisOne(v1alpha1.ReasonRepositoryFull), ready: "False/RepositoryFull"},
		"a wrong password needs a person":         {given: thisOne(v1alpha1.ReasonWrongPassword), ready: "False/WrongPassword", summary: "Stalled"},
		"a refused credential needs a person":     {given: thisOne(v1alpha1.ReasonAccessDenied), ready: "False/AccessDenied", summary: "Stalled"},
		"a wrong location needs a person":         {given: thisOne(v1alpha1.ReasonRepositoryUnusable), ready: "False/RepositoryUnusable", summary: "Stalled"},
		"a store that cannot lock needs a person": {given: thisOne(v1alpha1.ReasonObjectLockMissing), ready: "False/ObjectLockMissing", summary: "Stalled"},
		"a failure that nobody foresaw":           {given: thisOne("Surprise"), ready: "False/RepositoryUnusable"},
		"a probe that was canceled says nothing": {
			given: thisOne(v1alpha1.ReasonCanceled), ready: "Unknown/Probing", summary: "Reconciling",
		},
		"there is no Secret": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) { s.credential = credential{} },
			ready: "False/SecretNotFound", summary: "Stalled",
		},
		"the Secret lacks a key": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) { s.credential.missing = []string{"password"} },
			ready: "False/SecretIncomplete", summary: "Stalled",
		},
		"the Secret changed: it is handed out and probed at once": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) {
				s.probes = []v1alpha1.AgentTask{probeOf(*s, now, v1alpha1.ReasonSucceeded)}
				s.credential.version = "s1/8"
			},
			ready: "Unknown/Probing", summary: "Reconciling", probes: true, removes: 1, distribute: true,
		},
		"a host got the right": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) {
				s.probes = []v1alpha1.AgentTask{probeOf(*s, now, v1alpha1.ReasonSucceeded)}
				s.allowed = []string{"hyperkeep-host-hv01"}
			},
			ready: "True/Reachable", distribute: true,
		},
		"no keeper was ever there": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) { s.keeper = liveness.Pulse{State: liveness.NeverSeen} },
			ready: "Unknown/KeeperUnreachable", probes: true,
		},
		"the keeper is lost: what it found last is not believed": {
			given: func(r *v1alpha1.BackupRepository, s *observed) {
				s.keeper = liveness.Pulse{State: liveness.Lost}
				thisOne(v1alpha1.ReasonSucceeded)(r, s)
			},
			ready: "Unknown/KeeperUnreachable",
		},
		"the keeper lives and does not take its task": {
			given: func(_ *v1alpha1.BackupRepository, s *observed) {
				s.probes = []v1alpha1.AgentTask{probeOf(*s, now.Add(-interval), "")}
			},
			ready: "Unknown/KeeperUnreachable", probes: true, removes: 1,
		},
		"after a restart a keeper that was lost stays so": {
			given: func(r *v1alpha1.BackupRepository, s *observed) {
				s.keeper.State = liveness.Undecided
				r.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonKeeperUnreachable}}
				thisOne(v1alpha1.ReasonSucceeded)(r, s)
			},
			ready: "Unknown/KeeperUnreachable",
		},
		"another repository is in its place": {
			given: func(r *v1alpha1.BackupRepository, s *observed) {
				r.Status.RepositoryID = "k0"
				thisOne(v1alpha1.ReasonSucceeded)(r, s)
			},
			ready: "False/RepositoryReplaced", summary: "Stalled",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			object, seen := repository(), settled()
			c.given(object, &seen)
			next := decide(object, seen, now)
			g.Expect(described(next.status.Conditions)).To(Equal(strings.TrimSpace(c.ready + " " + c.summary)))
			g.Expect(next.probe != "").To(Equal(c.probes), "probe %q", next.probe)
			g.Expect(next.remove).To(HaveLen(c.removes))
			g.Expect(next.mark != "").To(Equal(c.distribute), "distribution")
			g.Expect(fmt.Sprint(next.status)).NotTo(ContainSubstring("BODY"), "what a store answers must not reach the status (T7)")
			g.Expect(next.wait.For).To(BeNumerically(">", 0))
			g.Expect(next.wait.For).To(BeNumerically("<=", interval))

			// Deciding again about the same, later, changes no status: else it would be written for ever.
			if object.Status = next.status; seen.keeper.State != liveness.Undecided {
				g.Expect(decide(object, seen, now.Add(time.Second)).status).To(Equal(next.status))
			}
		})
	}
}

func TestDecideTakesOverWhatAProbeFound(t *testing.T) {
	g := NewWithT(t)
	object, seen := repository(), settled()
	seen.probes = []v1alpha1.AgentTask{probeOf(seen, now, v1alpha1.ReasonSucceeded)}
	object.Status = decide(object, seen, now).status
	g.Expect(object.Status.RepositoryID).To(Equal("k1"))
	g.Expect(*object.Status.Images).To(Equal(int32(3)))
	g.Expect(object.Status.Stored).To(Equal("5.0 GiB"))
	g.Expect(object.Status.Free).To(Equal("1.0 TiB"))
	g.Expect(object.Status.LastProbeTime.Time).To(Equal(now.Add(time.Second)))

	seen.probes[0].Status.Probe.RepositoryID = "k2"
	status := decide(object, seen, now).status
	g.Expect(status.RepositoryID).To(Equal("k1"), "the old one may come back")
	g.Expect(meta.FindStatusCondition(status.Conditions, "Ready").Message).To(ContainSubstring("k2"))
}

func TestCredentialFrom(t *testing.T) {
	g := NewWithT(t)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{UID: "s1", ResourceVersion: "7"},
		Data:       map[string][]byte{"password": []byte("canary"), "accessKeyID": nil, "unrelated": []byte("else")},
	}
	folder := credentialFrom(secret, v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: "/r"}})
	g.Expect(folder.usable()).To(BeTrue())
	g.Expect(folder.agents).To(Equal(map[string][]byte{"password": []byte("canary")}), "nothing else is handed out")
	g.Expect(folder.keeper).To(Equal(folder.agents))
	g.Expect(folder.separate).To(BeTrue(), "a folder has no credential")
	g.Expect(fmt.Sprintf("%v %+v %s", folder, folder, folder)).NotTo(ContainSubstring("canary"))

	bucket := credentialFrom(secret, v1alpha1.RepositoryLocation{S3: &v1alpha1.S3Location{}})
	g.Expect(bucket.usable()).To(BeFalse())
	g.Expect(bucket.missing).To(Equal([]string{"accessKeyID", "secretAccessKey"}))
	g.Expect(credentialFrom(nil, v1alpha1.RepositoryLocation{}).usable()).To(BeFalse())
}

func TestAgentsGetNoKeyOfTheKeeper(t *testing.T) { // T1, I2
	g := NewWithT(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{UID: "s1", ResourceVersion: "7"}, Data: map[string][]byte{
		"password": []byte("p"), "accessKeyID": []byte("adds"), "secretAccessKey": []byte("a"),
	}}
	at := v1alpha1.RepositoryLocation{S3: &v1alpha1.S3Location{}}
	shared := credentialFrom(secret, at)
	g.Expect(shared.usable()).To(BeTrue())
	g.Expect(shared.separate).To(BeFalse())
	g.Expect(shared.keeper).To(Equal(shared.agents))

	secret.Data["keeper.accessKeyID"] = []byte("deletes")
	g.Expect(credentialFrom(secret, at).missing).To(Equal([]string{"keeper.secretAccessKey"}), "half a key is none")
	secret.Data["keeper.secretAccessKey"] = []byte("d")
	split := credentialFrom(secret, at)
	g.Expect(split.usable()).To(BeTrue())
	g.Expect(split.separate).To(BeTrue())
	g.Expect(split.agents).To(Equal(map[string][]byte{"password": []byte("p"), "accessKeyID": []byte("adds"), "secretAccessKey": []byte("a")}))
	g.Expect(split.keeper).To(Equal(map[string][]byte{"password": []byte("p"), "accessKeyID": []byte("deletes"), "secretAccessKey": []byte("d")}))

	secret.Data["sasToken"], secret.Data["serviceAccountKey"] = []byte("sas"), []byte("key")
	g.Expect(credentialFrom(secret, v1alpha1.RepositoryLocation{Azure: &v1alpha1.AzureLocation{}}).agents).To(HaveKey("sasToken"))
	g.Expect(credentialFrom(secret, v1alpha1.RepositoryLocation{GCS: &v1alpha1.GCSLocation{}}).agents).To(HaveKey("serviceAccountKey"))
}

func TestDecideSaysWhatTheStorageLacks(t *testing.T) {
	dependable := func(status v1alpha1.BackupRepositoryStatus) string {
		c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDependable)
		if c == nil {
			return ""
		}
		return string(c.Status) + " " + c.Message
	}
	g := NewWithT(t)
	object, seen := repository(), settled()
	seen.credential.separate = true
	seen.probes = []v1alpha1.AgentTask{probeOf(seen, now, v1alpha1.ReasonSucceeded)}
	g.Expect(dependable(decide(object, seen, now).status)).To(BeEmpty(), "it was not tested")
	g.Expect(testDue(object, now)).To(BeTrue())

	seen.probes[0].Status.Probe.Storage = &v1alpha1.StorageFacts{TestTime: metav1.NewTime(now), Lacks: []v1alpha1.StorageAbility{"ObjectLock"}}
	object.Status = decide(object, seen, now).status
	g.Expect(dependable(object.Status)).To(HavePrefix("True"), "nobody asked for locks")
	g.Expect(testDue(object, now.Add(time.Hour))).To(BeFalse())
	g.Expect(testDue(object, now.Add(25*time.Hour))).To(BeTrue())

	object.Spec.Immutability = &v1alpha1.Immutability{RetentionDays: 1}
	g.Expect(dependable(decide(object, seen, now).status)).To(HavePrefix("False ObjectLock: "))
	object.Spec.Immutability, object.Generation = nil, 3
	g.Expect(testDue(object, now)).To(BeTrue(), "the spec changed")

	seen.probes[0].Status.Probe.Storage = nil // the next probe tests nothing
	object.Generation, seen.credential.separate = 2, false
	shared := decide(object, seen, now).status
	g.Expect(dependable(shared)).To(And(HavePrefix("False SeparateCredentials: "), ContainSubstring("right to delete")))
	g.Expect(shared.Storage.Lacks).To(Equal([]v1alpha1.StorageAbility{"ObjectLock", "SeparateCredentials"}))
	object.Status = shared
	g.Expect(decide(object, seen, now).status).To(Equal(shared))
	for _, ability := range []v1alpha1.StorageAbility{"ReadAfterWrite", "ListAfterWrite", "ConditionalCreate", "DurableNames", "Clock", "ObjectLock"} {
		g.Expect(lacking).To(HaveKey(ability))
	}
}

func described(conditions []metav1.Condition) string {
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	words := fmt.Sprintf("%s/%s", ready.Status, ready.Reason)
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		if meta.FindStatusCondition(conditions, kind) != nil {
			words += " " + kind
		}
	}
	return words
}
