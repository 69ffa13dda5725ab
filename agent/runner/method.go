package runner

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// method is how the disks of one virtual machine are frozen, and why so.
type method struct {
	name v1alpha1.BackupMethod
	why  readReason
}

// Why a method was chosen. That the one which comes first is not eligible is said by reasonIneligible.
const reasonIneligible = "MethodIneligible"

var (
	reasonRequested = readReason{"Requested", "the policy names this method"}
	reasonPreferred = readReason{"Preferred", "the host can take recovery checkpoints"}
	reasonStaysVSS  = readReason{"StaysWithVSS", "the newest image of the virtual machine was taken by VSS; method: WMI in the policy changes that, and reads everything once"}
)

// preferences lists the methods that a task may use, the first choice first. A policy that names one allows the other only as its fallback.
func preferences(spec *v1alpha1.BackupTask) []method {
	wmi, shadow := method{v1alpha1.MethodWMI, reasonPreferred}, method{v1alpha1.MethodVSS, reasonStaysVSS}
	wanted := []method{wmi, shadow}
	switch {
	case spec.Method == v1alpha1.MethodChoiceWMI:
		wanted[0].why = reasonRequested
	case spec.Method == v1alpha1.MethodChoiceVSS:
		shadow.why = reasonRequested
		wanted = []method{shadow, wmi}
	case spec.LastMethod == v1alpha1.MethodVSS:
		return []method{shadow, wmi} // DR-20
	default:
		return wanted
	}
	if spec.OnMethodIneligible == v1alpha1.MethodIneligibleFail {
		return wanted[:1]
	}
	return wanted
}

// chooseMethod takes the first method that the host can do for the virtual machine. Those in ruledOut turned out not to work for it, with the reason.
func chooseMethod(spec *v1alpha1.BackupTask, info hyperv.HostInfo, ruledOut map[v1alpha1.BackupMethod]error) (method, error) {
	var why []string
	var first hyperv.ConcernReason = reasonIneligible
	for i, m := range preferences(spec) {
		obstacles := obstaclesOf(m.name, info)
		if err := ruledOut[m.name]; err != nil {
			obstacles = append(obstacles, hyperv.Concern{Reason: reasonIneligible, Message: err.Error()})
		}
		if len(obstacles) == 0 {
			if i > 0 {
				m.why = readReason{reasonIneligible, strings.Join(why, " ")}
			}
			return m, nil
		}
		if i == 0 {
			first = obstacles[0].Reason
		}
		for _, o := range obstacles {
			why = append(why, fmt.Sprintf("%s: %s", m.name, o.Message))
		}
	}
	return method{}, stall(string(first), errors.New(strings.Join(why, " ")))
}

func obstaclesOf(name v1alpha1.BackupMethod, info hyperv.HostInfo) []hyperv.Concern {
	if name == v1alpha1.MethodVSS {
		return hyperv.ShadowObstacles(info)
	}
	return hyperv.HostObstacles(info)
}

// notOffered tells a failure of the method VSS that is about this virtual machine or host as such: the other method may do.
func notOffered(err error) bool {
	return errors.Is(err, hyperv.ErrNotInWriter) || errors.Is(err, vss.ErrNoWriter)
}
