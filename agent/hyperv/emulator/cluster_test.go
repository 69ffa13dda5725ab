package emulator

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestClusterIsReadable(t *testing.T) {
	root := tempDir(t)
	shared := filepath.Join(root, "shared")
	addVM(t, shared, "crm", "")
	write(t, filepath.Join(shared, "cluster.yaml"), "name: CL1\nfunctionalLevel: 10\nnodes: [HV01, HV02]\n")
	write(t, filepath.Join(root, "a", "host.yaml"), "cluster: shared\n")
	h, w := openHost(t, filepath.Join(root, "a"))
	session := h.Session(wmi.NamespaceCluster)
	for class := range builders {
		if !strings.HasPrefix(class, "MSCluster_") {
			continue
		}
		all, err := session.Query(w.ctx, "SELECT * FROM "+class)
		if err != nil || len(all) == 0 {
			t.Errorf("%s: %d instances, %v", class, len(all), err)
		}
		for _, i := range all {
			if again, err := session.Get(w.ctx, i.Path); err != nil || again.Path != i.Path {
				t.Errorf("get %s: %v", i.Path, err)
			}
		}
	}
	resources, err := session.Query(w.ctx, "SELECT * FROM MSCluster_Resource WHERE Type = 'Virtual Machine'")
	if err != nil || len(resources) != 1 {
		t.Fatalf("%v, %v", resources, err)
	}
	if private, _ := resources[0].String("PrivateProperties"); !strings.Contains(private, w.vm("crm").Properties["Name"].(string)) {
		t.Errorf("private properties %s", private)
	}
	if _, err := w.session.Query(w.ctx, "SELECT * FROM MSCluster_Resource"); !errors.Is(err, wmi.ErrInvalidClass) {
		t.Errorf("the cluster in the other namespace: %v", err)
	}
}

func TestHostsThatAreNoNodeAreRefused(t *testing.T) {
	root := tempDir(t)
	write(t, filepath.Join(root, "shared", "cluster.yaml"), "name: CL1\nfunctionalLevel: 10\nnodes: [HV01]\n")
	open := func(folder, text string) error {
		write(t, filepath.Join(root, folder, "host.yaml"), text)
		h, err := Open(filepath.Join(root, folder), Options{})
		if err == nil {
			t.Cleanup(func() { _ = h.Close() })
		}
		return err
	}
	for name, c := range map[string]struct{ folder, host, want string }{
		"a host that the cluster does not know": {"x", "name: HV09\ncluster: shared\n", "none of its nodes"},
		"a folder that is none beside it":       {"y", "cluster: ../../etc\n", "no folder beside"},
		"a cluster that is not there":           {"z", "cluster: nowhere\n", "no such file"},
	} {
		if err := open(c.folder, c.host); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := open("a", "cluster: shared\n"); err != nil {
		t.Fatal(err)
	}
	if err := open("b", "cluster: shared\n"); err == nil || !strings.Contains(err.Error(), "another host is the node") {
		t.Errorf("a second host of the same name: %v", err)
	}
}

// Installed alone, the feature brings classes of which nobody tells.
func TestClusterWithoutItsServiceIsSilent(t *testing.T) {
	root := tempDir(t)
	write(t, filepath.Join(root, "shared", "cluster.yaml"), "name: CL1\nfunctionalLevel: 10\nnodes: [HV01]\n")
	write(t, filepath.Join(root, "node", "host.yaml"), "cluster: shared\n")
	write(t, filepath.Join(root, "none", "host.yaml"), "failoverClustering: true\n")
	for folder, answers := range map[string]bool{"node": true, "none": false} {
		h, w := openHost(t, filepath.Join(root, folder))
		cluster, cim := h.Session(wmi.NamespaceCluster), h.Session(wmi.NamespaceCIMv2)
		asked := func() bool {
			_, err := cluster.Query(w.ctx, "SELECT * FROM MSCluster_Cluster")
			if err != nil && !errors.Is(err, wmi.ErrDisconnected) {
				t.Errorf("%s: %v", folder, err)
			}
			return err == nil
		}
		if got := asked(); got != answers {
			t.Errorf("%s: it answers is %v", folder, got)
		}
		if _, err := cluster.(wmi.Describer).Describe(w.ctx, "MSCluster_Cluster"); err != nil {
			t.Errorf("%s: the classes are there without the service: %v", folder, err)
		}
		service, err := cim.Query(w.ctx, "SELECT * FROM Win32_Service WHERE Name='ClusSvc'")
		if err != nil || len(service) != 1 || service[0].Properties["StartMode"] == "Disabled" == answers {
			t.Fatalf("%s: %v, %v", folder, service, err)
		}
		if _, err := cim.Invoke(w.ctx, service[0].Path, "StopService", nil); err != nil || asked() {
			t.Errorf("%s: it answers without its service, %v", folder, err)
		}
		if r, err := cim.Invoke(w.ctx, service[0].Path, "StartService", nil); err != nil || (r.ReturnValue == codeDone) != answers || asked() != answers {
			t.Errorf("%s: start: %d, %v", folder, r.ReturnValue, err)
		}
	}
}
