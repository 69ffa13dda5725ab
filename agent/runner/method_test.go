package runner

import (
	"errors"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestMethodIsChosenWithItsReason(t *testing.T) {
	modern, old, desktop := hyperv.HostInfo{Build: 20348}, hyperv.HostInfo{Build: 9600, OS: "Windows Server 2012 R2"}, hyperv.HostInfo{Build: 26100, Desktop: true}
	unlisted := map[v1alpha1.BackupMethod]error{v1alpha1.MethodVSS: hyperv.ErrNotInWriter}
	const wmi, vss, fail = v1alpha1.MethodChoiceWMI, v1alpha1.MethodChoiceVSS, v1alpha1.MethodIneligibleFail
	for name, c := range map[string]struct {
		spec     v1alpha1.BackupTask
		host     hyperv.HostInfo
		ruledOut map[v1alpha1.BackupMethod]error
		want     v1alpha1.BackupMethod
		reason   string
	}{
		"Auto takes WMI where the host can (DR-19)":                  {v1alpha1.BackupTask{}, modern, nil, v1alpha1.MethodWMI, "Preferred"},
		"Auto takes VSS on a host before 2016 (NW-02)":               {v1alpha1.BackupTask{}, old, nil, v1alpha1.MethodVSS, "MethodIneligible"},
		"Auto stays with VSS (DR-20)":                                {v1alpha1.BackupTask{LastMethod: v1alpha1.MethodVSS}, modern, nil, v1alpha1.MethodVSS, "StaysWithVSS"},
		"the policy switches to WMI (DR-21)":                         {v1alpha1.BackupTask{Method: wmi, LastMethod: v1alpha1.MethodVSS}, modern, nil, v1alpha1.MethodWMI, "Requested"},
		"the policy wants VSS":                                       {v1alpha1.BackupTask{Method: vss}, modern, nil, v1alpha1.MethodVSS, "Requested"},
		"WMI falls back on a host before 2016 (NW-02)":               {v1alpha1.BackupTask{Method: wmi}, old, nil, v1alpha1.MethodVSS, "MethodIneligible"},
		"WMI does not fall back where the policy says so (NW-02)":    {v1alpha1.BackupTask{Method: wmi, OnMethodIneligible: fail}, old, nil, "", "HostTooOld"},
		"VSS falls back for a machine that the writer does not list": {v1alpha1.BackupTask{Method: vss}, modern, unlisted, v1alpha1.MethodWMI, "MethodIneligible"},
		"and does not where the policy says so":                      {v1alpha1.BackupTask{Method: vss, OnMethodIneligible: fail}, modern, unlisted, "", "MethodIneligible"},
		"a desktop edition can do neither (EZ-02)":                   {v1alpha1.BackupTask{}, desktop, nil, "", "DesktopEdition"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := chooseMethod(&c.spec, c.host, c.ruledOut)
			if c.want == "" {
				failed, ok := errors.AsType[*taskError](err)
				if !ok || failed.failure.Reason != c.reason || failed.failure.Action != v1alpha1.FailureStall {
					t.Fatalf("%+v, %v", m, err)
				}
				return
			}
			if err != nil || m.name != c.want || m.why.reason != c.reason {
				t.Fatalf("%+v, %v", m, err)
			}
			if m.why.reason == "MethodIneligible" && !strings.HasPrefix(m.why.message, "WMI: ") && !strings.HasPrefix(m.why.message, "VSS: ") {
				t.Errorf("the message names no method: %s", m.why.message)
			}
		})
	}
}
