package backupjob

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestNeedsOfABackup(t *testing.T) {
	const volume, other = `C:\ClusterStorage\Volume1\`, `C:\ClusterStorage\Volume2\`
	type world struct {
		job     *v1alpha1.BackupJob
		machine *v1alpha1.VirtualMachine
		host    *v1alpha1.HyperVHost
	}
	byVSS := func(w *world) { w.job.Spec.Method = v1alpha1.MethodChoiceVSS }
	hardware := func(w *world) { w.host.Spec.VSSProvider = &v1alpha1.VSSProvider{Type: v1alpha1.VSSProviderHardware} }
	cases := map[string]struct {
		edits []func(*world)
		want  []string
	}{
		"the method WMI shares":                          {},
		"the method VSS does not":                        {[]func(*world){byVSS}, []string{volume}},
		"nor does a machine that stays with VSS (DR-20)": {[]func(*world){func(w *world) { w.machine.Status.LastRestorePoint = &v1alpha1.RestorePoint{Method: v1alpha1.MethodVSS} }}, []string{volume}},
		"nor a host without the method WMI":              {[]func(*world){func(w *world) { w.host.Status.Facts.Build = "9600" }}, []string{volume}},
		"a hardware provider shares":                     {edits: []func(*world){byVSS, hardware}},
		"but not on Server 2008 R2 (DR-09)":              {[]func(*world){hardware, func(w *world) { w.host.Status.Facts.Build = "7601" }}, []string{volume}},
		"a software provider does not":                   {[]func(*world){byVSS, func(w *world) { hardware(w); w.host.Spec.VSSProvider.Type = v1alpha1.VSSProviderSoftware }}, []string{volume}},
		"outside of a cluster there is nothing to share": {edits: []func(*world){byVSS, func(w *world) { w.host.Status.Facts.ClusterName = "" }}},
		"a machine on volumes of the host's own":         {edits: []func(*world){byVSS, func(w *world) { w.machine.Status.Facts.Disks[0].Path = `D:\a.vhdx` }}},
		"disks on two volumes need both": {[]func(*world){byVSS, func(w *world) {
			w.machine.Status.Facts.Disks = append(w.machine.Status.Facts.Disks, v1alpha1.VirtualMachineDisk{Path: `c:\clusterstorage\volume2\b.vhdx`})
		}}, []string{volume, other}},
		"the host is not known yet": {edits: []func(*world){byVSS, func(w *world) { w.host = nil }}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			w := &world{&v1alpha1.BackupJob{}, &v1alpha1.VirtualMachine{}, &v1alpha1.HyperVHost{}}
			w.job.Spec.Method = v1alpha1.MethodChoiceAuto
			w.machine.Status.Facts = &v1alpha1.VirtualMachineFacts{Disks: []v1alpha1.VirtualMachineDisk{{Path: volume + `crm\a.vhdx`}, {}}}
			w.host.Status.Facts = &v1alpha1.HostFacts{
				ClusterName: "CL1", Build: "20348", Volumes: []v1alpha1.HostVolume{{Path: `D:\`}, {Path: volume, Shared: true}, {Path: other, Shared: true}},
			}
			for _, edit := range c.edits {
				edit(w)
			}
			got := needs(w.job, w.machine, w.host)
			g.Expect(got.SharedVolumes).To(Equal(c.want))
			g.Expect(got.Cluster != "").To(Equal(c.want != nil))
		})
	}
}
