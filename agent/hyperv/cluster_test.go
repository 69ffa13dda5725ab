package hyperv_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// also answers for classes beside those of another session.
type also struct {
	wmi.Session
	classes map[string][]wmi.Instance
}

func (a also) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	for class, instances := range a.classes {
		if strings.HasPrefix(wql+" ", "SELECT * FROM "+class+" ") {
			return instances, nil
		}
	}
	return a.Session.Query(ctx, wql)
}

func (a also) Associators(ctx context.Context, path, assoc, class string) ([]wmi.Instance, error) {
	if instances, known := a.classes[class]; known {
		return instances, nil
	}
	return a.Session.Associators(ctx, path, assoc, class)
}

func instance(class string, properties map[string]any) wmi.Instance {
	return wmi.Instance{Class: class, Properties: properties}
}

// vmResource is the resource of a VM in a cluster. Its private properties are an embedded instance, which a session gives as text.
func vmResource(id, node string) wmi.Instance {
	return instance("MSCluster_Resource", map[string]any{
		"Type": "Virtual Machine", "OwnerNode": node, "OwnerGroup": "group of " + id[:1],
		"PrivateProperties": `<INSTANCE CLASSNAME="MSCluster_Property_Resource_Virtual_Machine"><PROPERTY NAME="VmID" TYPE="string"><VALUE>` + id + `</VALUE></PROPERTY></INSTANCE>`,
	})
}

// withCluster puts the lab's host into a failover cluster.
func (l *lab) withCluster(level int64, resources ...wmi.Instance) *hyperv.Host {
	return hyperv.New(hyperv.Seams{
		Virtualization: l.host.Session(wmi.NamespaceVirtualization), CIM: l.host.Session(wmi.NamespaceCIMv2),
		Disks: l.host.Disks(), Files: l.host.Files(), Clock: hurried{},
		Cluster: also{l.host.Session(wmi.NamespaceCluster), map[string][]wmi.Instance{
			"MSCluster_Cluster":             {instance("MSCluster_Cluster", map[string]any{"Name": "CL1", "ClusterFunctionalLevel": level, "BackupInProgress": int64(1)})},
			"MSCluster_ClusterSharedVolume": {instance("MSCluster_ClusterSharedVolume", map[string]any{"Name": `C:\ClusterStorage\Volume1`})},
			"MSCluster_Resource":            resources,
		}},
	})
}

// DR-17.
func TestTheClusterOfAHost(t *testing.T) {
	l := newLab(t, oneVM())
	info, err := l.Info(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(info.Cluster).To(BeNil(), "a host without the namespace is in no cluster")
	l.Expect(l.vm(crmID).Cluster).To(BeNil())

	info, err = l.withCluster(8).Info(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(info.Cluster).To(Equal(&hyperv.Cluster{Name: "CL1", Level: 8, BackupInProgress: true}))
	l.Expect(info.Volumes).To(ContainElement(And(
		HaveField("Name", `C:\ClusterStorage\Volume1`), HaveField("Shared", true), HaveField("Total", BeNumerically(">", 0)))))
	vm, err := l.withCluster(8).VM(t.Context(), crmID)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(vm.Concerns).To(ContainElement(HaveField("Reason", hyperv.ClusterLevelTooLow)))
}

// silent is a session that answers nothing.
type silent struct {
	wmi.Session
	with error
}

func (s silent) Query(context.Context, string) ([]wmi.Instance, error) { return nil, s.with }

// The provider of the cluster's classes comes with the failover clustering feature, and fails where no cluster service runs.
func TestAClusterThatDoesNotAnswer(t *testing.T) {
	service := func(state, mode string) []wmi.Instance {
		return []wmi.Instance{instance("Win32_Service", map[string]any{"Name": "ClusSvc", "State": state, "StartMode": mode})}
	}
	tests := map[string]struct {
		service  []wmi.Instance
		with     error
		stopped  bool
		isNoNode bool
	}{
		"the host is no node, and RPC fails":         {service("Stopped", "Disabled"), wmi.ErrDisconnected, false, true},
		"the host is no node, and access is denied":  {service("Stopped", "Disabled"), wmi.ErrAccessDenied, false, true},
		"the host is no node, for an unknown reason": {service("Stopped", "Disabled"), errors.New("0x8004106c"), false, true},
		"there is no service":                        {nil, errors.New("0x80041001"), false, true},
		"the node's service is stopped":              {service("Stopped", "Auto"), wmi.ErrDisconnected, true, true},
		"the node's service is about to run":         {service("Start Pending", "Auto"), wmi.ErrDisconnected, false, false},
		"the node's service runs":                    {service("Running", "Auto"), wmi.ErrDisconnected, false, false},
		"the node's service runs, but is disabled":   {service("Running", "Disabled"), wmi.ErrDisconnected, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			host := hyperv.New(hyperv.Seams{
				Virtualization: l.host.Session(wmi.NamespaceVirtualization), Disks: l.host.Disks(), Files: l.host.Files(), Clock: hurried{},
				CIM:     also{l.host.Session(wmi.NamespaceCIMv2), map[string][]wmi.Instance{"Win32_Service": tt.service}},
				Cluster: silent{with: tt.with},
			})
			info, err := host.Info(t.Context())
			if !tt.isNoNode {
				l.Expect(err).To(MatchError(tt.with))
				return
			}
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect([]any{info.Cluster, info.ClusterStopped}).To(Equal([]any{(*hyperv.Cluster)(nil), tt.stopped}))
			inventory, err := host.Inventory(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			concern := ContainElement(HaveField("Reason", hyperv.ClusterServiceStopped))
			if !tt.stopped {
				concern = Not(concern)
			}
			l.Expect(inventory.VMs[0].Concerns).To(concern)
		})
	}
}

// A host outside of a cluster has the feature, as an image for servers may, or has left its cluster.
func TestAHostWithTheFeatureAndNoCluster(t *testing.T) {
	l := newLab(t, oneVM().on("jobMillis: 1\nfailoverClustering: true\n"))
	info, err := l.Info(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect([]any{info.Cluster, info.ClusterStopped}).To(Equal([]any{(*hyperv.Cluster)(nil), false}))
	l.Expect(l.vm(crmID).Concerns).To(BeEmpty())
	l.mustCheckpoint("task-1", hyperv.Application)
}

// A node whose service is stopped backs up what it has, and says what it does not know.
func TestANodeWhoseServiceIsStopped(t *testing.T) {
	l, _ := twoNodes(t)
	l.Expect(l.vm(crmID).Cluster).NotTo(BeNil())
	s := l.host.Session(wmi.NamespaceCIMv2)
	service, err := s.Query(t.Context(), "SELECT * FROM Win32_Service WHERE Name='ClusSvc'")
	l.Expect(err).NotTo(HaveOccurred())
	turn := func(method string) {
		_, err := s.Invoke(t.Context(), service[0].Path, method, wmi.Params{})
		l.Expect(err).NotTo(HaveOccurred())
	}
	turn("StopService")
	vm := l.vm(crmID)
	l.Expect(vm.Cluster).To(BeNil())
	l.Expect(vm.Concerns).To(ContainElement(HaveField("Reason", hyperv.ClusterServiceStopped)))
	turn("StartService")
	l.Expect(l.vm(crmID).Cluster).NotTo(BeNil())
}

// A VM of the cluster that another node owns is not this host's to back up, whatever its remnants here say.
func TestTheOwnersWordCounts(t *testing.T) {
	files := oneVM()
	files["web/vm.yaml"] = "id: " + webID + "\nstate: off\n"
	l := newLab(t, files)
	inventory, err := l.withCluster(9, vmResource(crmID, "hv01.example.com"), vmResource(strings.ToLower(webID), "HV02")).Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	crm, web := inventory.VMs[0], inventory.VMs[1]
	l.Expect(crm.Cluster).To(Equal(&hyperv.Ownership{Group: "group of 1", Node: "hv01.example.com", Here: true}))
	l.Expect(crm.Concerns).To(BeEmpty())
	l.Expect(web.Cluster.Here).To(BeFalse())
	l.Expect(web.Concerns[0]).To(And(HaveField("Reason", hyperv.OwnedElsewhere), HaveField("Message", ContainSubstring("HV02"))))

	moved, err := l.withCluster(9, vmResource(crmID, "HV02")).Refresh(t.Context(), inventory, []string{crmID})
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(moved.VMs[0].Cluster.Here).To(BeFalse())
}

func TestTraitsAndGuestsOfAVM(t *testing.T) {
	l := newLab(t, oneVM())
	device := func(class string, more map[string]any) []wmi.Instance {
		properties := map[string]any{"InstanceID": `Microsoft:` + crmID + `\device`, "SystemName": crmID}
		for name, value := range more {
			properties[name] = value
		}
		return []wmi.Instance{instance(class, properties)}
	}
	item := func(name, data string) string {
		return `<INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem"><PROPERTY NAME="Data" TYPE="string"><VALUE>` + data +
			`</VALUE></PROPERTY><PROPERTY NAME="Name" TYPE="string"><VALUE>` + name + `</VALUE></PROPERTY></INSTANCE>`
	}
	host := hyperv.New(hyperv.Seams{
		CIM: l.host.Session(wmi.NamespaceCIMv2), Disks: l.host.Disks(), Files: l.host.Files(), Clock: hurried{},
		Virtualization: also{l.host.Session(wmi.NamespaceVirtualization), map[string][]wmi.Instance{
			"Msvm_SecuritySettingData":         device("Msvm_SecuritySettingData", map[string]any{"TpmEnabled": true, "ShieldingRequested": false}),
			"Msvm_FcPortAllocationSettingData": device("Msvm_FcPortAllocationSettingData", nil),
			"Msvm_PciExpressSettingData":       device("Msvm_PciExpressSettingData", nil),
			"Msvm_GpuPartitionSettingData":     device("Msvm_GpuPartitionSettingData", nil),
			"Msvm_KvpExchangeComponent": device("Msvm_KvpExchangeComponent", map[string]any{"GuestIntrinsicExchangeItems": []string{
				item("OSName", "Windows Server 2022 Standard"), item("FullyQualifiedDomainName", "crm.example.com"), "not XML",
				item("NetworkAddressIPv4", "10.0.0.5;10.0.0.6;10.0.0.5"), item("NetworkAddressIPv6", "fe80::1"),
			}}),
		}},
	})
	inventory, err := host.Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	one, err := host.VM(t.Context(), crmID)
	l.Expect(err).NotTo(HaveOccurred())
	for _, vm := range []hyperv.VM{inventory.VMs[0], one} {
		l.Expect(vm.Traits).To(Equal(hyperv.Traits{TPM: true, FibreChannel: 1, AssignedDevices: 2}))
		l.Expect(vm.Guest).To(Equal(hyperv.Guest{
			OS: "Windows Server 2022 Standard", Name: "crm.example.com", Addresses: []string{"10.0.0.5", "10.0.0.6", "fe80::1"},
		}))
	}
}

func TestANodeKnowsThatItOwnsItsVM(t *testing.T) {
	first, _ := twoNodes(t)
	vm := first.vm(crmID)
	first.Expect(vm.Cluster).To(And(HaveField("Node", "HV01"), HaveField("Here", true)))
	first.Expect(vm.Concerns).To(BeEmpty())
	info, err := first.Info(t.Context())
	first.Expect(err).NotTo(HaveOccurred())
	first.Expect(info.Volumes).To(ContainElement(And(HaveField("Shared", true), HaveField("Total", BeNumerically(">", 0)))))
}
