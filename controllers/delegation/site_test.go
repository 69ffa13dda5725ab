package delegation

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func ready(message string, status metav1.ConditionStatus) []metav1.Condition {
	return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Message: message}}
}

// newSite is a place with room for one more task.
func newSite() Site {
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01"}, Spec: v1alpha1.HyperVHostSpec{MaxParallelJobs: 2}}
	host.Status.Conditions = ready("", metav1.ConditionTrue)
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: "main"}}
	repository.Spec.AllowedNamespaces = []string{"finance", "sales"}
	repository.Status.Conditions = ready("", metav1.ConditionTrue)
	return Site{
		Namespace: "sales", RepositoryName: "main", HostName: "hv01", Repository: repository, Host: host, Credential: true,
		Tasks: only(newTask(1, func(t *v1alpha1.AgentTask) { t.Labels[v1alpha1.LabelVirtualMachineID] = "vm-2" })),
	}
}

// onVolume is a backup on another host that has a shared volume for itself.
func onVolume(cluster, volume string) v1alpha1.AgentTask {
	task := newTask(1)
	task.Namespace = "hyperkeep-host-hv02"
	task.Labels[v1alpha1.LabelVirtualMachineID], task.Labels[v1alpha1.LabelCluster], task.Labels[v1alpha1.LabelHost] = "vm-2", cluster, "hv02"
	task.Spec.Backup = &v1alpha1.BackupTask{SharedVolumes: []string{volume}}
	return task
}

func TestVolumeObstacleSaysBehindWhom(t *testing.T) {
	g := NewWithT(t)
	site := newSite()
	site.Tasks = only(onVolume("c1", "V"))
	g.Expect(site.Obstacle(Needs{Cluster: "c1", SharedVolumes: []string{"V"}}).Message).To(HavePrefix("BackupJob sales/crm on host hv02 backs up from the cluster shared volume V"))
}

func TestObstacles(t *testing.T) {
	cases := map[string]struct {
		edit   func(*Site)
		reason string
		remedy Remedy
	}{
		"nothing is in the way":                               {edit: func(*Site) {}},
		"the repository is missing, it may come":              {func(s *Site) { s.Repository = nil }, v1alpha1.ReasonRepositoryNotFound, Patience},
		"the repository serves other namespaces":              {func(s *Site) { s.Namespace = "hr" }, v1alpha1.ReasonRepositoryNotAllowed, Person},
		"the repository serves all namespaces":                {edit: func(s *Site) { s.Namespace = "hr"; s.Repository.Spec.AllowedNamespaces = []string{"*"} }},
		"the repository was not probed yet":                   {func(s *Site) { s.Repository.Status.Conditions = nil }, v1alpha1.ReasonRepositoryNotReady, Patience},
		"the repository is away":                              {func(s *Site) { s.Repository.Status.Conditions = ready("gone", "False") }, v1alpha1.ReasonRepositoryNotReady, Patience},
		"the host is missing":                                 {func(s *Site) { s.Host = nil }, v1alpha1.ReasonHostNotFound, Patience},
		"the host is not ready":                               {func(s *Site) { s.Host.Status.Conditions = ready("lost", "False") }, v1alpha1.ReasonHostUnreachable, Patience},
		"the host takes no new work":                          {func(s *Site) { s.Host.Spec.Unschedulable = true }, v1alpha1.ReasonHostUnschedulable, Patience},
		"the host has enough to do":                           {func(s *Site) { s.Host.Spec.MaxParallelJobs = 1 }, v1alpha1.ReasonHostAtLimit, Patience},
		"a finished task occupies nothing":                    {edit: func(s *Site) { s.Host.Spec.MaxParallelJobs = 1; s.Tasks = only(newTask(1, succeeded)) }},
		"a task of a keeper occupies nothing":                 {edit: func(s *Site) { s.Host.Spec.MaxParallelJobs = 1; s.Tasks[0].Spec.Kind = v1alpha1.TaskVerify }},
		"the virtual machine is worked on":                    {func(s *Site) { s.Tasks = only(newTask(1)) }, v1alpha1.ReasonVirtualMachineBusy, Patience},
		"it was worked on until now":                          {edit: func(s *Site) { s.Tasks = only(newTask(1, succeeded)) }},
		"it is worked on at the host it was on":               {func(s *Site) { s.Tasks[0] = newTask(1); s.Tasks[0].Namespace = "hyperkeep-host-hv02" }, v1alpha1.ReasonVirtualMachineBusy, Patience},
		"a task elsewhere takes no room here":                 {edit: func(s *Site) { s.Host.Spec.MaxParallelJobs = 1; s.Tasks[0].Namespace = "hyperkeep-host-hv02" }},
		"a shared volume is backed up from elsewhere (DR-09)": {func(s *Site) { s.Tasks = only(onVolume("c1", `C:\ClusterStorage\Volume2\`)) }, v1alpha1.ReasonSharedVolumeBusy, Patience},
		"another one of the cluster is":                       {edit: func(s *Site) { s.Tasks = only(onVolume("c1", `C:\ClusterStorage\Volume1\`)) }},
		"that of another cluster is":                          {edit: func(s *Site) { s.Tasks = only(onVolume("c2", `C:\ClusterStorage\Volume2\`)) }},
		"it was until now": {edit: func(s *Site) {
			task := onVolume("c1", `C:\ClusterStorage\Volume2\`)
			succeeded(&task)
			s.Tasks = only(task)
		}},
		"the agent has not got the credential yet": {func(s *Site) { s.Credential = false }, v1alpha1.ReasonRepositoryNotReady, Patience},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			site := newSite()
			c.edit(&site)
			obstacle := site.Obstacle(Needs{MachineID: "vm-1", Cluster: "c1", SharedVolumes: []string{`C:\ClusterStorage\Volume2\`}})
			if c.reason == "" {
				g.Expect(obstacle).To(BeNil())
				return
			}
			g.Expect(obstacle).NotTo(BeNil())
			g.Expect(obstacle.Reason).To(Equal(c.reason))
			g.Expect(obstacle.Remedy).To(Equal(c.remedy))
			g.Expect(obstacle.Message).NotTo(BeEmpty())
		})
	}
}

func TestTaskNames(t *testing.T) {
	g := NewWithT(t)
	task := newTask(12)
	g.Expect(task.Name).To(Equal("backup-u1-12"))
	g.Expect(Attempt(&task)).To(Equal(int32(12)))
	g.Expect(Attempt(&v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Name: "by-hand"}})).To(BeZero())
}

func TestATaskKnowsTheBandwidthOfItsHost(t *testing.T) {
	limit := int64(1 << 20)
	limits := &v1alpha1.BandwidthLimits{TimeZone: "UTC", BytesPerSecond: &limit}
	site := Site{
		Repository: &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: "main"}},
		Host:       &v1alpha1.HyperVHost{Spec: v1alpha1.HyperVHostSpec{Bandwidth: limits}},
	}
	task := &v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}}}
	SetSite(task, site)
	if got := task.Spec.Repository; got.Name != "main" || got.Bandwidth == nil || *got.Bandwidth.BytesPerSecond != limit || got.Bandwidth == limits {
		t.Errorf("%+v", got)
	}
	site.Host.Spec.Bandwidth = nil
	if SetSite(task, site); task.Spec.Repository.Bandwidth != nil {
		t.Errorf("without limits: %+v", task.Spec.Repository.Bandwidth)
	}
}
