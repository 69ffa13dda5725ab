package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// checkHost looks at the operating system, and returns what it found.
func (p *Preflight) checkHost(ctx context.Context, r *Report, host *hyperv.Host) hyperv.HostInfo {
	info, err := host.Info(ctx)
	if err != nil {
		r.fail(SectionHost, "operating system", err, "Check that the service Winmgmt runs and that this account may read WMI.")
		return info
	}
	r.Host = info.Name
	found := fmt.Sprintf("%s, version %s, build %d, up since %s", info.OS, info.Version, info.Build, info.Booted.Format("2006-01-02 15:04 UTC"))
	obstacles := hyperv.HostObstacles(info)
	if len(obstacles) == 0 {
		r.pass(SectionHost, "operating system", "%s", found)
	}
	for _, o := range obstacles {
		r.add(SectionHost, "operating system", Failed, found, o.Message)
	}
	return info
}

// checkProcess looks at what this process may do, and at the functions of Windows that it calls.
func (p *Preflight) checkProcess(ctx context.Context, r *Report) {
	facts, err := p.Machine.Facts(ctx)
	switch {
	case err != nil:
		r.fail(SectionProcess, "rights", err, "")
		return
	case !strings.HasPrefix(facts.Platform, "windows/"):
		r.add(SectionProcess, "rights and functions", Unchecked, "this program runs on "+facts.Platform+", not on a Hyper-V host", "")
		return
	}
	if facts.Elevated {
		r.pass(SectionProcess, "elevation", "%s, elevated", facts.Account)
	} else {
		r.add(SectionProcess, "elevation", Failed, facts.Account+", not elevated: Hyper-V hides its objects from this process",
			"Start it from an elevated prompt; the service runs as LocalSystem and needs nothing.")
	}
	checkAll(r, "privileges", facts.Privileges, "Run as an administrator or as LocalSystem.")
	checkAll(r, "functions", facts.Exports, "This Windows lacks functions of Server 2016 and later, so change tracking cannot be asked.")
}

// checkAll adds one check for a set of things that must all be there.
func checkAll(r *Report, name string, there map[string]bool, remedy string) {
	var missing []string
	for _, thing := range slices.Sorted(maps.Keys(there)) {
		if !there[thing] {
			missing = append(missing, thing)
		}
	}
	if len(missing) == 0 {
		r.pass(SectionProcess, name, "all %d that are needed", len(there))
		return
	}
	r.add(SectionProcess, name, Failed, "missing: "+strings.Join(missing, ", "), remedy)
}

// services are those that a backup needs, and whether they must run all the time. VSS is started when it is asked.
var services = []struct {
	name, title string
	running     bool
}{
	{"vmms", "Hyper-V Virtual Machine Management", true},
	{"Winmgmt", "Windows Management Instrumentation", true},
	{"VSS", "Volume Shadow Copy", false},
}

func (p *Preflight) checkServices(ctx context.Context, r *Report) {
	for _, s := range services {
		found, err := p.Seams.CIM.Query(ctx, "SELECT * FROM Win32_Service WHERE Name="+wmi.Quote(s.name))
		switch {
		case err != nil:
			r.fail(SectionServices, s.name, err, "")
			continue
		case len(found) == 0:
			r.add(SectionServices, s.name, Failed, s.title+" is not installed", "Install the Hyper-V role with its management tools.")
			continue
		}
		state, err := found[0].String("State")
		mode, modeErr := found[0].String("StartMode")
		switch {
		case errors.Join(err, modeErr) != nil:
			r.fail(SectionServices, s.name, errors.Join(err, modeErr), "")
		case mode == "Disabled":
			r.add(SectionServices, s.name, Failed, s.title+" is disabled", fmt.Sprintf("Set-Service %s -StartupType Manual, or Automatic.", s.name))
		case s.running && state != "Running":
			r.add(SectionServices, s.name, Failed, fmt.Sprintf("%s is %s", s.title, strings.ToLower(state)), "Start-Service "+s.name)
		default:
			r.pass(SectionServices, s.name, "%s: %s", s.title, strings.ToLower(state))
		}
	}
}

// checkCluster looks at the failover cluster, if the host is in one.
func checkCluster(r *Report, info hyperv.HostInfo) {
	switch c := info.Cluster; {
	case info.ClusterStopped:
		r.add(SectionCluster, "cluster service", Concern, "the host is a node of a failover cluster, and its service ClusSvc is stopped",
			"Start-Service ClusSvc, or remove the host from the cluster.")
	case c == nil:
		r.pass(SectionCluster, "failover cluster", "none")
	case c.Level < hyperv.FirstClusterWithRCT:
		r.add(SectionCluster, "functional level", Concern, fmt.Sprintf("%s has level %d, and change tracking needs %d", c.Name, c.Level, hyperv.FirstClusterWithRCT),
			"Update-ClusterFunctionalLevel, when every node has been upgraded.")
	default:
		r.pass(SectionCluster, "functional level", "%s has level %d", c.Name, c.Level)
	}
}

// scarce is when a volume counts as nearly full: a checkpoint's files grow with the guests' writes until they are merged.
const scarce = 10 // percent

func checkVolumes(r *Report, info hyperv.HostInfo) {
	for _, v := range info.Volumes {
		found := fmt.Sprintf("%s free of %s", humanize.IBytes(uint64(max(0, v.Free))), humanize.IBytes(uint64(max(0, v.Total))))
		if v.Total > 0 && v.Free < v.Total/100*scarce {
			r.add(SectionVolumes, v.Name, Concern, found, "Make room: while a backup runs, guests write to new files on the volumes of their disks.")
			continue
		}
		r.pass(SectionVolumes, v.Name, "%s", found)
	}
}
