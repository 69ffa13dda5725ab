package hyperv_test

import (
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestInventoryDescribesHostAndVMs(t *testing.T) {
	files := oneVM()
	files["host.yaml"] = "name: HV07\nosVersion: \"2019\"\njobMillis: 1\nvolumes: {E: {sizeBytes: 1073741824}}\n"
	files["web/vm.yaml"] = `
id: ` + webID + `
name: web
generation: 1
version: "5.0"
processors: 4
memoryMiB: 2048
dynamicMemory: {minimumMiB: 512, maximumMiB: 4096}
integrationServices: disabled
checkpoints: standard
replica: primary
disks:
- path: web.vhdx
  controller: IDE 0:1
- passThrough: 3
  sizeBytes: 1048576
  controller: SCSI 0:5
`
	files["web/web.vhdx"] = ""
	l := newLab(t, files)
	got, err := l.Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(got.Host.Name).To(Equal("HV07"))
	l.Expect(got.Host.Build).To(Equal(17763))
	l.Expect(got.Host.Desktop).To(BeFalse())
	l.Expect(got.Host.Time).NotTo(BeZero())
	var volumes []string
	for _, v := range got.Host.Volumes {
		volumes = append(volumes, v.Name)
		l.Expect(v.Total).To(BeNumerically(">=", v.Free))
	}
	l.Expect(volumes).To(Equal([]string{"C:", "D:", "E:"}))
	l.Expect(hyperv.HostObstacles(got.Host)).To(BeEmpty())

	l.Expect(got.VMs).To(HaveLen(2))
	crm, web := got.VMs[0], got.VMs[1]
	l.Expect([]any{crm.ID, crm.Name, crm.State, crm.Generation, crm.ConfigurationVersion, crm.BackupService, crm.CheckpointType, crm.Replica}).
		To(Equal([]any{crmID, "crm", hyperv.Running, 2, "9.0", hyperv.BackupServiceOK, hyperv.CheckpointsProduction, hyperv.ReplicaNone}))
	l.Expect(crm.Concerns).To(BeEmpty())
	l.Expect(crm.Networks).To(Equal([]hyperv.NetworkAdapter{{Name: "Network Adapter", Address: "00155D010203", Static: true, Switch: "LAN"}}))
	l.Expect(crm.Disks).To(HaveLen(2))
	l.Expect(crm.Disks[0].Key).To(Equal("SCSI-0-0"))
	l.Expect(crm.Disks[1].Key).To(Equal("SCSI-0-1"))
	l.Expect(crm.Disks[1].Path).To(Equal(`D:\VMs\crm\data.vhdx`))
	l.Expect(crm.Disks[1].VirtualSize).To(BeEquivalentTo(diskSize))
	l.Expect(crm.Disks[0].DiskID).NotTo(Or(BeEmpty(), Equal(crm.Disks[1].DiskID)))

	l.Expect([]any{web.State, web.Generation, web.Processors, web.BackupService, web.CheckpointType, web.Replica}).
		To(Equal([]any{hyperv.Off, 1, 4, hyperv.BackupServiceDisabled, hyperv.CheckpointsStandard, hyperv.ReplicaPrimary}))
	l.Expect(web.Memory.Startup).To(BeEquivalentTo(2048))
	l.Expect([]any{web.Memory.Dynamic, web.Memory.Minimum, web.Memory.Maximum}).To(Equal([]any{true, int64(512), int64(4096)}))
	l.Expect(web.Disks[0].Key).To(Equal("IDE-0-1"))
	l.Expect(web.Disks[1].Kind).To(Equal(hyperv.DiskPassThrough))
	var reasons []hyperv.ConcernReason
	for _, c := range web.Concerns {
		reasons = append(reasons, c.Reason)
	}
	l.Expect(reasons).To(Equal([]hyperv.ConcernReason{
		hyperv.PassThroughDisk, hyperv.BackupServiceIsDisabled, hyperv.ProductionCheckpointsOff, hyperv.ConfigurationVersionTooOld,
	}))

	l.Expect(l.vm(webID)).To(Equal(web), "one VM is described as in the inventory")
}

func TestInventoryAsksAsOftenForManyVMsAsForOne(t *testing.T) {
	calls := func(vms int) int {
		files := machines{}
		for i := range vms {
			files[fmt.Sprintf("vm%d/vm.yaml", i)] = "disks: [{path: a.vhdx}]\n"
			files[fmt.Sprintf("vm%d/a.vhdx", i)] = ""
		}
		l := newLab(t, files)
		inventory, err := l.Inventory(t.Context())
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(inventory.VMs).To(HaveLen(vms))
		return l.wire.calls
	}
	NewWithT(t).Expect(calls(5)).To(Equal(calls(1)))
}

func TestVMNotFound(t *testing.T) {
	l := newLab(t, oneVM())
	_, err := l.VM(t.Context(), webID)
	l.Expect(err).To(MatchError(hyperv.ErrVMNotFound))
	_, err = l.VM(t.Context(), "x' OR Name<>'")
	l.Expect(err).To(MatchError(hyperv.ErrVMNotFound))
	_, err = l.VM(t.Context(), "11111111-1111-4111-8111-11111111111"+"1")
	l.Expect(err).NotTo(HaveOccurred())
}

// EZ-02.
func TestDesktopEditionIsAnObstacle(t *testing.T) {
	l := newLab(t, machines{"host.yaml": "edition: desktop\n"})
	info, err := l.Info(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	obstacles := hyperv.HostObstacles(info)
	l.Expect(obstacles).To(HaveLen(1))
	l.Expect(obstacles[0].Reason).To(Equal(hyperv.DesktopEdition))
}

func TestIntegrationServicesOfTheGuestAreSeen(t *testing.T) {
	for services, want := range map[string]hyperv.BackupService{
		"ok": hyperv.BackupServiceOK, "disabled": hyperv.BackupServiceDisabled, "missing": hyperv.BackupServiceMissing,
	} {
		t.Run(services, func(t *testing.T) {
			l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: "+services))
			l.Expect(l.vm(crmID).BackupService).To(Equal(want))
		})
	}
}

func TestDuplicateDiskIDsAreAConcern(t *testing.T) {
	l := newLab(t, oneVM())
	l.Expect(l.TurnOff(t.Context(), crmID)).To(Succeed())
	l.copyFile("crm/system.vhdx", "copy/system.vhdx")
	l.writeFile("copy/vm.yaml", "disks: [{path: system.vhdx}]\n")
	inventory, err := l.Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(inventory.VMs).To(HaveLen(2))
	for _, vm := range inventory.VMs {
		l.Expect(vm.Concerns).To(ContainElement(HaveField("Reason", hyperv.DuplicateDiskID)), vm.Name)
	}
}

func TestDisconnectedServiceIsToldAsSuch(t *testing.T) {
	l := newLab(t, oneVM())
	l.wire.cutAfter(1)
	_, err := l.Inventory(t.Context())
	l.Expect(errors.Is(err, wmi.ErrDisconnected)).To(BeTrue(), "%v", err)
}
