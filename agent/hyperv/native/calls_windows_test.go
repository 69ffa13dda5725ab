package native_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/native"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// crmID is the virtual machine that package test/wine laid out: running, with two disks.
const crmID = "11111111-1111-4111-8111-111111111111"

// machine is this one, seen through COM and virtdisk.dll, and the program that serves its Hyper-V.
type machine struct {
	*testing.T
	*WithT
	*hyperv.Host
	virt    wmi.Session
	cim     wmi.Session
	answers *bufio.Reader
}

// hurried is a clock on which waiting takes a hundredth of the time.
type hurried struct{}

func (hurried) Now() time.Time                         { return time.Now() }
func (hurried) After(d time.Duration) <-chan time.Time { return time.After(d / 100) }

func open(t *testing.T) *machine {
	t.Helper()
	seams, end, err := native.Open(hurried{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return &machine{T: t, WithT: NewWithT(t), Host: hyperv.New(seams), virt: seams.Virtualization, cim: seams.CIM, answers: bufio.NewReader(os.Stdin)}
}

// fault is an emulator.Fault: how the next call of a method fails.
type fault struct {
	Method      string `json:"method"`
	ReturnValue uint32 `json:"returnValue,omitempty"`
	JobError    int64  `json:"jobError,omitempty"`
	Message     string `json:"message,omitempty"`
	Hang        bool   `json:"hang,omitempty"`
	Stubborn    bool   `json:"stubborn,omitempty"`
}

// tell has the program that runs these tests do something to the host.
func (m *machine) tell(command string, argument any) {
	m.Helper()
	text, err := json.Marshal(argument)
	m.Expect(err).NotTo(HaveOccurred())
	fmt.Printf("\nhost: %s %s\n", command, text)
	answer, err := m.answers.ReadString('\n')
	m.Expect(err).NotTo(HaveOccurred())
	m.Expect(strings.TrimSpace(answer)).To(Equal("done"))
}

// invalidState is what a method returns that cannot be done now.
const invalidState = 32775

// failing calls an operation with each of the methods that it calls failing in its turn, in the order in which it calls them, and then for good.
func (m *machine) failing(operation func() error, methods ...string) {
	m.Helper()
	for _, method := range methods {
		m.tell("fail", fault{Method: method, ReturnValue: invalidState})
		err := operation()
		var failed *wmi.MethodError
		if !errors.As(err, &failed) || failed.Method != method || failed.ReturnValue != invalidState || !errors.Is(err, hyperv.ErrBusy) {
			m.Fatalf("%s failed, and the operation said: %v", method, err)
		}
	}
	m.Expect(operation()).To(Succeed())
}

// TestEachMethodFailsAndSucceeds goes through what an agent does with a host. Each method of Hyper-V fails once, which the operation tells, and called again
// the operation completes, and has done all once.
func TestEachMethodFailsAndSucceeds(t *testing.T) {
	m := open(t)
	m.startsTheService()
	definition := m.staged()
	m.convertsAndDrops()
	m.imports(definition)
	m.defines()
	m.switches()
	m.importsATree()
	m.explains()
	m.givesUp()
}

func (m *machine) startsTheService() {
	m.Helper()
	service := func() string {
		found, err := m.cim.Query(m.Context(), "SELECT * FROM Win32_Service WHERE Name='VSS'")
		m.Expect(err).NotTo(HaveOccurred())
		state, err := found[0].String("State")
		m.Expect(err).NotTo(HaveOccurred())
		return state
	}
	const noResponse = 7 // Win32_Service.StartService: the service did not answer in time
	m.tell("fail", fault{Method: "StartService", ReturnValue: noResponse})
	m.Expect(m.StartVSS(m.Context())).To(And(MatchError(hyperv.ErrVSSUnavailable), MatchError(ContainSubstring("returned 7"))))
	m.Expect(service()).To(Equal("Stopped"))
	m.Expect(m.StartVSS(m.Context())).To(Succeed())
	m.Expect(service()).To(Equal("Running"))
}

// request is a checkpoint of the virtual machine.
func (m *machine) request(tag string) hyperv.CheckpointRequest {
	m.Helper()
	intent, err := m.PrepareCheckpoint(m.Context(), crmID, hyperv.Crash)
	m.Expect(err).NotTo(HaveOccurred())
	return hyperv.CheckpointRequest{VMID: crmID, Tag: tag, Level: hyperv.Crash, Intent: intent}
}

// staged takes a checkpoint, copies the configuration files away, and releases it. It returns the file to import.
func (m *machine) staged() string {
	m.Helper()
	request, cp := m.request("task-1"), hyperv.Checkpoint{}
	m.tell("fail", fault{Method: "ModifySystemSettings", ReturnValue: invalidState})
	m.failing(func() (err error) {
		cp, err = m.Checkpoint(m.Context(), request)
		return err
	}, "CreateSnapshot")
	m.Expect(cp.Unnamed).To(ContainSubstring("returned 32775"))
	m.Expect(m.Owned(m.Context())).To(ConsistOf(cp), "one, though it could not be named")
	files, err := m.ConfigurationFiles(m.Context(), cp)
	m.Expect(err).NotTo(HaveOccurred())
	var names []string
	m.Expect(os.MkdirAll(`D:\VMs\staging`, 0o755)).To(Succeed())
	for _, f := range files {
		content, err := os.ReadFile(f.Path)
		m.Expect(err).NotTo(HaveOccurred())
		m.Expect(os.WriteFile(`D:\VMs\staging\`+f.Name, content, 0o644)).To(Succeed())
		names = append(names, f.Name)
	}
	m.failing(func() error { return m.Release(m.Context(), cp) }, "DestroySnapshot")
	m.awaitReleased(cp)
	return `D:\VMs\staging\` + hyperv.DefinitionFile(names)
}

func (m *machine) awaitReleased(cp hyperv.Checkpoint) {
	m.Helper()
	m.Eventually(func() (hyperv.ReleaseState, error) { return m.Released(m.Context(), cp, nil) }, time.Minute, 10*time.Millisecond).
		Should(Equal(hyperv.ReleaseState{Done: true}))
}

func (m *machine) convertsAndDrops() {
	m.Helper()
	cp, err := m.Checkpoint(m.Context(), m.request("task-2"))
	m.Expect(err).NotTo(HaveOccurred())
	disks, _, err := m.Disks(m.Context(), cp)
	m.Expect(err).NotTo(HaveOccurred())
	var point hyperv.ReferencePoint
	m.failing(func() error {
		point, err = m.Convert(m.Context(), cp, disks)
		return err
	}, "ConvertToReferencePoint")
	m.awaitReleased(cp)
	m.Expect(m.ReferencePoints(m.Context(), crmID)).To(ConsistOf(HaveField("ID", point.ID)))
	m.failing(func() error { return m.DropReferencePoint(m.Context(), crmID, point.ID) }, "DestroyReferencePoint")
	m.Expect(m.ReferencePoints(m.Context(), crmID)).To(BeEmpty())
}

// target is a restore with one disk, which it makes.
func (m *machine) target(name string) hyperv.RestoreTarget {
	m.Helper()
	folder := `D:\VMs\` + name
	disk := filepath.Join(folder, "system.vhdx")
	m.Expect(os.MkdirAll(folder, 0o755)).To(Succeed())
	f, err := os.Create(disk)
	m.Expect(err).NotTo(HaveOccurred())
	_, err = vhdx.Create(f, vhdx.Options{VirtualSize: 16 << 20, BlockSize: 1 << 20})
	m.Expect(errors.Join(err, f.Close())).To(Succeed())
	return hyperv.RestoreTarget{Name: name, Folder: folder, Tag: name, Disks: []hyperv.TargetDisk{{Key: "SCSI-0-0", Path: disk}}}
}

// removed takes a restored virtual machine away again.
func (m *machine) removed(restored hyperv.Restored, t hyperv.RestoreTarget) {
	m.Helper()
	vm := restored.VM
	m.Expect([]any{vm.Name, vm.State, len(vm.Disks), vm.Disks[0].Path}).To(Equal([]any{t.Name, hyperv.Off, 1, t.Disks[0].Path}))
	m.failing(func() error { return m.RemoveVM(m.Context(), t.Tag) }, "DestroySystem")
	inventory, err := m.Inventory(m.Context())
	m.Expect(err).NotTo(HaveOccurred())
	m.Expect(inventory.VMs).To(ConsistOf(HaveField("ID", crmID)))
}

func (m *machine) imports(file string) {
	m.Helper()
	im, err := m.PrepareImport(m.Context(), file, "", "crm", nil)
	m.Expect(err).NotTo(HaveOccurred())
	target, restored := m.target("imported"), hyperv.Restored{}
	m.failing(func() error {
		restored, err = m.ImportVM(m.Context(), im, target)
		return err
	}, "ImportSystemDefinition", "ModifySystemSettings", "ModifyResourceSettings", "RemoveResourceSettings", "ValidatePlannedSystem", "RealizePlannedSystem")
	m.removed(restored, target)
}

func (m *machine) defines() {
	m.Helper()
	vm, err := m.VM(m.Context(), crmID)
	m.Expect(err).NotTo(HaveOccurred())
	target, restored := m.target("defined"), hyperv.Restored{}
	m.failing(func() error {
		restored, err = m.DefineVM(m.Context(), vm.Definition(), target)
		return err
	}, "DefineSystem", "ModifyResourceSettings", "AddResourceSettings")
	m.removed(restored, target)
}

func (m *machine) switches() {
	m.Helper()
	m.failing(func() error { return m.TurnOff(m.Context(), crmID) }, "RequestStateChange")
	m.Expect(m.VM(m.Context(), crmID)).To(HaveField("State", hyperv.Off))
	m.failing(func() error { return m.Start(m.Context(), crmID) }, "RequestStateChange")
	m.Expect(m.VM(m.Context(), crmID)).To(HaveField("State", hyperv.Running))
}

// importsATree imports the virtual machine with a checkpoint of its user, as a copy of its files.
func (m *machine) importsATree() {
	m.Helper()
	m.byHand("CreateSnapshot", wmi.Params{"AffectedSystem": m.path("Msvm_ComputerSystem WHERE Name='" + crmID + "'"), "SnapshotType": int64(2)})
	m.Expect(m.TurnOff(m.Context(), crmID)).To(Succeed())
	target := hyperv.RestoreTarget{Name: "tree", Folder: `D:\VMs\tree`, Tag: "tree", Tree: &hyperv.TargetTree{Folder: `D:\VMs\grove\Snapshots`}}
	for from, to := range map[string]string{
		`D:\VMs\crm\*.vhdx`: `D:\VMs\tree`, `D:\VMs\crm\*.avhdx`: `D:\VMs\tree`,
		`D:\VMs\crm\Virtual Machines\*.*`: `D:\VMs\grove`, `D:\VMs\crm\Snapshots\*.*`: `D:\VMs\grove\Snapshots`,
	} {
		m.copies(from, to, target.Tree)
	}
	vm, err := m.VM(m.Context(), crmID)
	m.Expect(err).NotTo(HaveOccurred())
	for _, d := range vm.Disks {
		target.Disks = append(target.Disks, hyperv.TargetDisk{Key: d.Key, Path: filepath.Join(target.Folder, filepath.Base(d.Path))})
	}
	m.Expect(m.LinkTree(m.Context(), target.Tree.Disks)).To(Succeed())
	im, err := m.PrepareImport(m.Context(), `D:\VMs\grove\`+crmID+".vmcx", "", "crm", nil)
	m.Expect(err).NotTo(HaveOccurred())
	var restored hyperv.Restored
	m.failing(func() error {
		restored, err = m.ImportVM(m.Context(), im, target)
		return err
	}, "ImportSnapshotDefinitions")
	m.Expect(restored.VM.Checkpoints).To(ConsistOf(HaveField("Kind", hyperv.CheckpointUser)))
	m.Expect(restored.VM.Current).To(Equal(restored.VM.Checkpoints[0].ID))
	m.Expect(m.RemoveVM(m.Context(), target.Tag)).To(Succeed())
	m.byHand("DestroySnapshot", wmi.Params{"AffectedSnapshot": m.path("Msvm_VirtualSystemSettingData WHERE VirtualSystemType='Microsoft:Hyper-V:Snapshot:Realized'")})
	m.Eventually(func() (hyperv.VM, error) { return m.VM(m.Context(), crmID) }, time.Minute, 10*time.Millisecond).
		Should(HaveField("Operation", hyperv.Operation("")))
	m.Expect(m.Start(m.Context(), crmID)).To(Succeed())
}

// byHand calls a method of the snapshot service as a person's tools do.
func (m *machine) byHand(method string, in wmi.Params) {
	m.Helper()
	_, err := wmi.Call(m.Context(), m.virt, hurried{}, m.path("Msvm_VirtualSystemSnapshotService"), method, in)
	m.Expect(err).NotTo(HaveOccurred())
}

// path is that of the one object of a query.
func (m *machine) path(query string) string {
	m.Helper()
	found, err := m.virt.Query(m.Context(), "SELECT * FROM "+query)
	m.Expect(err).NotTo(HaveOccurred())
	m.Expect(found).To(HaveLen(1), query)
	return found[0].Path
}

// copies copies files, and notes in a tree where disk files went.
func (m *machine) copies(from, to string, tree *hyperv.TargetTree) {
	m.Helper()
	m.Expect(os.MkdirAll(to, 0o755)).To(Succeed())
	found, err := filepath.Glob(from)
	m.Expect(err).NotTo(HaveOccurred())
	m.Expect(found).NotTo(BeEmpty(), from)
	for _, path := range found {
		content, err := os.ReadFile(path)
		m.Expect(err).NotTo(HaveOccurred())
		copied := filepath.Join(to, filepath.Base(path))
		m.Expect(os.WriteFile(copied, content, 0o644)).To(Succeed())
		if strings.HasSuffix(path, "vhdx") {
			tree.Disks = append(tree.Disks, hyperv.MovedFile{From: path, To: copied})
		}
	}
}

// explains has a job fail, and then one whose errors cannot be asked for.
func (m *machine) explains() {
	m.Helper()
	const why = "The volume is away."
	for _, told := range []bool{true, false} {
		if !told {
			m.tell("fail", fault{Method: "GetErrorEx", ReturnValue: invalidState})
		}
		m.tell("fail", fault{Method: "CreateSnapshot", JobError: 32768, Message: why})
		_, err := m.Checkpoint(m.Context(), m.request("task-3"))
		var failed *wmi.MethodError
		m.Expect(errors.As(err, &failed)).To(BeTrue(), "%v", err)
		m.Expect(failed.JobErrorCode).To(BeNumerically("==", 32768))
		m.Expect(failed.Text()).To(ContainSubstring(why), "GetErrorEx answered: %t; else it is the job's own description", told)
	}
	m.Expect(m.Owned(m.Context())).To(BeEmpty())
}

// givesUp waits in vain for a job that then stops when it is asked to, and for one that cannot be asked.
func (m *machine) givesUp() {
	m.Helper()
	for _, refused := range []bool{false, true} {
		m.tell("fail", fault{Method: "CreateSnapshot", Hang: true, Stubborn: refused})
		if refused {
			m.tell("fail", fault{Method: "RequestStateChange", ReturnValue: invalidState})
		}
		request := m.request("task-4")
		request.Timeout = time.Second
		_, err := m.Checkpoint(m.Context(), request)
		m.Expect(err).To(MatchError(ContainSubstring("timed out")))
		if refused {
			_, err := m.Checkpoint(m.Context(), request)
			m.Expect(err).To(MatchError(hyperv.ErrBusy), "the job runs on")
			m.tell("release", nil)
		}
		m.Eventually(func() error {
			cp, err := m.Checkpoint(m.Context(), request)
			if err == nil {
				err = m.Release(m.Context(), cp)
			}
			return err
		}, time.Minute, 10*time.Millisecond).Should(Succeed())
		m.Eventually(func() (hyperv.VM, error) { return m.VM(m.Context(), crmID) }, time.Minute, 10*time.Millisecond).
			Should(And(HaveField("Checkpoints", BeEmpty()), HaveField("Operation", hyperv.Operation(""))))
	}
}
