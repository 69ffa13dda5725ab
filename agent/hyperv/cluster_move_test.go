package hyperv_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// twoNodes are two hosts over one shared volume, which holds the VM. The first owns it.
func twoNodes(t *testing.T) (first, second *lab) {
	t.Helper()
	g := NewWithT(t)
	root, err := os.MkdirTemp(memory(), "cl")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	layout := &lab{T: t, WithT: g, dir: root}
	files := oneVM()
	for name, text := range files {
		if filepath.Ext(name) == ".yaml" {
			layout.writeFile("shared/"+name, text)
		} else {
			g.Expect(os.MkdirAll(filepath.Join(root, "shared", "crm"), 0o755)).To(Succeed())
			layout.makeDisk(filepath.Join(root, "shared", name), 0)
		}
	}
	layout.writeFile("shared/cluster.yaml", "name: CL1\nfunctionalLevel: 10\nnodes: [HV01, HV02]\n")
	node := func(name string) *lab {
		l := &lab{T: t, WithT: g, dir: filepath.Join(root, name)}
		l.writeFile("host.yaml", "name: "+name+"\ncluster: shared\njobMillis: 1\n")
		l.host, err = emulator.Open(l.dir, emulator.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(func() { g.Expect(l.host.Close()).To(Succeed()) })
		l.Host = hyperv.New(hyperv.Seams{
			Virtualization: l.host.Session(wmi.NamespaceVirtualization), CIM: l.host.Session(wmi.NamespaceCIMv2),
			Cluster: l.host.Session(wmi.NamespaceCluster), Disks: l.host.Disks(), Files: l.host.Files(), Clock: hurried{},
		})
		return l
	}
	return node("HV01"), node("HV02")
}

// NW-08, EZ-20: what a backup left on a VM goes with it, and the new node's agent knows it for ours.
func TestVMMovesToAnotherNodeDuringItsBackup(t *testing.T) {
	first, second := twoNodes(t)
	base := first.base()
	cp := first.mustCheckpoint("task-1", hyperv.Crash)
	disks := first.frozen(cp)
	first.Expect(first.host.Faults().Happen(emulator.Happening{What: "movedToNode", Machine: "crm", To: "HV02"})).To(Succeed())
	first.Eventually(func() error { _, err := first.VM(t.Context(), crmID); return err }, 10*time.Second).Should(MatchError(hyperv.ErrVMNotFound))
	second.Eventually(func() error { _, err := second.VM(t.Context(), crmID); return err }, 10*time.Second).Should(Succeed())

	_, _, err := first.Disks(t.Context(), cp)
	first.Expect(err).To(Or(MatchError(hyperv.ErrCheckpointNotFound), MatchError(hyperv.ErrVMNotFound)))
	first.Expect(first.Release(t.Context(), cp)).To(Succeed(), "nothing of it is here any more")

	owned, err := second.Owned(t.Context())
	second.Expect(err).NotTo(HaveOccurred())
	second.Expect(owned).To(HaveLen(1))
	second.Expect(owned[0].Tag).To(Equal("task-1"))
	second.Expect(second.ReferencePoints(t.Context(), crmID)).To(ContainElement(HaveField("ID", base.ID)))
	second.Expect(second.changes(second.frozen(owned[0])[1], base.Disks[1].Tracked())).To(BeEmpty())
	second.Expect(second.Release(t.Context(), owned[0])).To(Succeed())
	second.waitReleased(owned[0], disks)
}

// NW-08: every node tells who owns the VMs of its cluster.
func TestNodesTellTheOwnersOfTheirVMs(t *testing.T) {
	first, second := twoNodes(t)
	inventory, err := first.Inventory(t.Context())
	first.Expect(err).NotTo(HaveOccurred())
	first.Expect(inventory.Host.Cluster).To(Equal(&hyperv.Cluster{Name: "CL1", Level: 10}))
	first.Expect(inventory.VMs).To(HaveLen(1))
	first.Expect(inventory.VMs[0].Disks[0].Path).To(Equal(`C:\ClusterStorage\Volume1\crm\system.vhdx`))
	inventory, err = second.Inventory(t.Context())
	second.Expect(err).NotTo(HaveOccurred())
	second.Expect(inventory.VMs).To(BeEmpty())
	group, err := second.host.Session(wmi.NamespaceCluster).Query(t.Context(), "SELECT * FROM MSCluster_ResourceGroup WHERE GroupType=111")
	second.Expect(err).NotTo(HaveOccurred())
	second.Expect(group).To(HaveLen(1))
	second.Expect(group[0].Properties["OwnerNode"]).To(Equal("HV01"))
	_, err = second.host.Session(wmi.NamespaceCluster).Invoke(t.Context(), group[0].Path, "MoveToNewNode", wmi.Params{"NodeName": "HV02"})
	second.Expect(err).NotTo(HaveOccurred())
	second.Eventually(func() ([]hyperv.VM, error) {
		inventory, err := second.Inventory(t.Context())
		return inventory.VMs, err
	}, 10*time.Second).Should(HaveLen(1))

	second.Expect(first.host.Close()).To(Succeed())
	nodes, err := second.host.Session(wmi.NamespaceCluster).Query(t.Context(), "SELECT Name, State FROM MSCluster_Node")
	second.Expect(err).NotTo(HaveOccurred())
	states := map[any]any{}
	for _, n := range nodes {
		states[n.Properties["Name"]] = n.Properties["State"]
	}
	second.Expect(states).To(Equal(map[any]any{"HV01": int64(1), "HV02": int64(0)}))
}
