package preflight_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestAGoodHostIsReady(t *testing.T) {
	g := NewWithT(t)
	r := of(seams(open(t, oneVM()))).Run(t.Context())
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitReady), "%+v", r.Checks)
	g.Expect(check(r, preflight.SectionMachines, "crm").Found).To(Equal(
		"running, generation 2, version 10.0, 2 of 2 disks backed up, application consistent, incremental after the first backup (0 of 2 tracked already)"))
	g.Expect(check(r, preflight.SectionClasses, wmi.NamespaceVirtualization).Found).To(MatchRegexp(`\d+ classes and \d+ methods are as expected`))
	g.Expect(check(r, preflight.SectionCluster, "failover cluster").Found).To(Equal("none"))
	g.Expect(check(r, preflight.SectionServices, "VSS").Found).To(Equal("Volume Shadow Copy: stopped"))
}

// DR-06, NW-10, EZ-22: what will be wrong with a backup is told before the first one, with what to do.
func TestConcernsOfVirtualMachinesAreInTheReport(t *testing.T) {
	g := NewWithT(t)
	files := oneVM()
	files["crm/vm.yaml"] += "- passThrough: 3\n"
	files["crm/vm.yaml"] = strings.Replace(crm, "}]", "}, {passThrough: 3}]\nintegrationServices: disabled", 1)
	r := of(seams(open(t, files))).Run(t.Context())
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitConcerns))
	g.Expect(check(r, preflight.SectionMachines, "crm").Found).To(ContainSubstring("2 of 3 disks backed up, crash consistent (the backup integration service is disabled"))
	g.Expect(check(r, preflight.SectionMachines, "PassThroughDisk")).To(And(HaveField("Result", preflight.Concern), HaveField("Found", ContainSubstring("agent inside the guest"))))
	g.Expect(check(r, preflight.SectionMachines, "BackupServiceDisabled").Result).To(Equal(preflight.Concern))
}

// EZ-02.
func TestADesktopEditionIsNotReady(t *testing.T) {
	g := NewWithT(t)
	r := of(seams(open(t, map[string]string{"host.yaml": "edition: desktop\n"}))).Run(t.Context())
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
	g.Expect(check(r, preflight.SectionHost, "operating system")).To(And(HaveField("Result", preflight.Failed), HaveField("Remedy", ContainSubstring("Windows Server"))))
}

// altered is a session of a host that differs from the emulated one.
type altered struct {
	wmi.Session
	describe func(*wmi.Class)
	answer   func([]wmi.Instance) ([]wmi.Instance, error)
}

func (a altered) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	found, err := a.Session.Query(ctx, wql)
	if err != nil || a.answer == nil {
		return found, err
	}
	return a.answer(found)
}

func (a altered) Describe(ctx context.Context, class string) (wmi.Class, error) {
	c, err := a.Session.(wmi.Describer).Describe(ctx, class)
	if err == nil && a.describe != nil {
		a.describe(&c)
	}
	return c, err
}

func TestWhatAHostLacksOfOurCallsIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*wmi.Class)
		want   string
	}{
		"a method":    {func(c *wmi.Class) { delete(c.Methods, "ConvertToReferencePoint") }, "Msvm_VirtualSystemSnapshotService.ConvertToReferencePoint"},
		"a parameter": {func(c *wmi.Class) { delete(c.Methods["CreateSnapshot"].In, "SnapshotType") }, "Msvm_VirtualSystemSnapshotService.CreateSnapshot(SnapshotType)"},
		"a property": {func(c *wmi.Class) {
			delete(c.Properties, "ResilientChangeTrackingIdentifiers")
		}, "Msvm_VirtualSystemReferencePoint.ResilientChangeTrackingIdentifiers"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := seams(open(t, oneVM()))
			s.Virtualization = altered{Session: s.Virtualization, describe: c.change}
			r := of(s).Run(t.Context())
			g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
			g.Expect(check(r, preflight.SectionClasses, c.want).Result).To(Equal(preflight.Failed), "%+v", r.Checks)
		})
	}
}

func TestAPropertyOfLaterWindowsMayBeMissing(t *testing.T) {
	g := NewWithT(t)
	s := seams(open(t, oneVM()))
	s.Virtualization = altered{Session: s.Virtualization, describe: func(c *wmi.Class) { delete(c.Properties, "GuestBackupType") }}
	r := of(s).Run(t.Context())
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitReady))
	g.Expect(check(r, preflight.SectionClasses, "Msvm_VirtualSystemSnapshotSettingData.GuestBackupType").Found).To(ContainSubstring("does without"))
}

func TestServicesThatDoNotWorkAreFailures(t *testing.T) {
	for name, c := range map[string]struct {
		properties map[string]any
		want       string
	}{
		"disabled":    {map[string]any{"StartMode": "Disabled"}, "is disabled"},
		"stopped":     {map[string]any{"State": "Stopped"}, "is stopped"},
		"unreadable":  {map[string]any{"State": int64(1)}, "is a int64"},
		"not there":   {nil, "is not installed"},
		"not running": {map[string]any{"State": "Start Pending"}, "is start pending"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := seams(open(t, oneVM()))
			s.CIM = altered{Session: s.CIM, answer: func(found []wmi.Instance) ([]wmi.Instance, error) {
				if len(found) == 0 || found[0].Class != "Win32_Service" || found[0].Properties["Name"] != "vmms" {
					return found, nil
				}
				if c.properties == nil {
					return nil, nil
				}
				for property, value := range c.properties {
					found[0].Properties[property] = value
				}
				return found, nil
			}}
			r := of(s).Run(t.Context())
			g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
			g.Expect(check(r, preflight.SectionServices, "vmms").Found).To(ContainSubstring(c.want))
		})
	}
}

// A host that has the failover clustering feature, and no cluster, is as ready as any.
func TestAClusterThatDoesNotRunIsNoFailure(t *testing.T) {
	for name, c := range map[string]struct {
		service map[string]any
		verdict int
		check   string
	}{
		"the host is no node":           {nil, preflight.ExitReady, "failover cluster"},
		"the node's service is stopped": {map[string]any{"StartMode": "Auto"}, preflight.ExitConcerns, "cluster service"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			files := oneVM()
			files["host.yaml"] = "failoverClustering: true\n"
			s := seams(open(t, files))
			s.CIM = altered{Session: s.CIM, answer: func(found []wmi.Instance) ([]wmi.Instance, error) {
				for _, i := range found {
					if i.Class == "Win32_Service" && i.Properties["Name"] == "ClusSvc" {
						maps.Copy(i.Properties, c.service)
					}
				}
				return found, nil
			}}
			r := of(s).Run(t.Context())
			g.Expect(r.ExitCode()).To(Equal(c.verdict), "%+v", r.Checks)
			g.Expect(check(r, preflight.SectionCluster, c.check).Found).NotTo(BeEmpty())
		})
	}
}

func TestAHostThatDoesNotAnswerStillHasAReport(t *testing.T) {
	g := NewWithT(t)
	s := seams(open(t, oneVM()))
	refuse := func([]wmi.Instance) ([]wmi.Instance, error) { return nil, wmi.ErrAccessDenied }
	s.Virtualization = altered{Session: s.Virtualization, answer: refuse}
	s.CIM = altered{Session: s.CIM, answer: refuse}
	r := of(s).Run(t.Context())
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
	for _, c := range []preflight.Check{
		check(r, preflight.SectionHost, "operating system"), check(r, preflight.SectionServices, "vmms"), check(r, preflight.SectionMachines, "inventory"),
	} {
		g.Expect(c.Found).To(ContainSubstring("access to WMI denied"), c.Name)
	}
}

// I4: what a dead backup left behind is found.
func TestLeftoversAreFound(t *testing.T) {
	g := NewWithT(t)
	s := seams(open(t, oneVM()))
	host := hyperv.New(s)
	intent, err := host.PrepareCheckpoint(t.Context(), crmID, hyperv.Crash)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = host.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: "dead-task", Level: hyperv.Crash, Intent: intent})
	g.Expect(err).NotTo(HaveOccurred())
	r := of(s).Run(t.Context())
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitConcerns))
	g.Expect(check(r, preflight.SectionLeftovers, "checkpoint of crm").Found).To(ContainSubstring("dead-task"))
}

func TestTheReportForPeople(t *testing.T) {
	g := NewWithT(t)
	r := of(seams(open(t, map[string]string{"host.yaml": "name: HV07\nedition: desktop\n"}))).Run(t.Context())
	var b bytes.Buffer
	g.Expect(r.WriteText(&b)).To(Succeed())
	text := b.String()
	g.Expect(text).To(HavePrefix("Preflight of HV07, "))
	g.Expect(text).To(MatchRegexp(`(?m)^  failed    operating system  `))
	g.Expect(text).To(MatchRegexp(`(?m)^ +what to do: +[A-Z]`))
	g.Expect(text).To(MatchRegexp(`(?s)NOT ANSWERED BY THIS RUN\n  - .*VERDICT\n  Not ready: 1 failure to put right`))
	for line := range strings.Lines(text) {
		g.Expect(len(line)).To(BeNumerically("<=", 120), line)
	}
	g.Expect(text).NotTo(ContainSubstring("\x1b"), "no colour")
	g.Expect(r.WriteText(broken{})).NotTo(Succeed())
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no paper") }

// fixed is a process on Windows.
type fixed preflight.Facts

func (f fixed) Facts(context.Context) (preflight.Facts, error) { return preflight.Facts(f), nil }

func TestWhatTheProcessMayNotDoIsAFailure(t *testing.T) {
	good := func() preflight.Facts {
		return preflight.Facts{
			Platform: "windows/amd64", Account: `NT AUTHORITY\SYSTEM`, Elevated: true,
			Privileges: map[string]bool{"SeManageVolumePrivilege": true}, Exports: map[string]bool{"virtdisk.dll!QueryChangesVirtualDisk": true},
		}
	}
	for name, c := range map[string]struct {
		change func(*preflight.Facts)
		check  string
		want   string
	}{
		"nothing":           {func(*preflight.Facts) {}, "", ""},
		"not elevated":      {func(f *preflight.Facts) { f.Elevated = false }, "elevation", "not elevated"},
		"a privilege":       {func(f *preflight.Facts) { f.Privileges["SeManageVolumePrivilege"] = false }, "privileges", "SeManageVolumePrivilege"},
		"an older virtdisk": {func(f *preflight.Facts) { f.Exports["virtdisk.dll!QueryChangesVirtualDisk"] = false }, "functions", "QueryChangesVirtualDisk"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			facts := good()
			c.change(&facts)
			p := of(seams(open(t, oneVM())))
			p.Machine = fixed(facts)
			r := p.Run(t.Context())
			if c.check == "" {
				g.Expect(r.ExitCode()).To(Equal(preflight.ExitReady), "%+v", r.Checks)
				return
			}
			g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
			g.Expect(check(r, preflight.SectionProcess, c.check).Found).To(ContainSubstring(c.want))
		})
	}
}
