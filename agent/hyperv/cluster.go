package hyperv

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Cluster is the failover cluster that a host is a node of.
type Cluster struct {
	Name string `json:"name"`
	// Level is the functional level, 9 for Server 2016.
	Level int `json:"level"`
	// BackupInProgress says that some product backs the cluster's volumes up right now.
	BackupInProgress bool `json:"backupInProgress,omitempty"`
}

// Ownership is what a failover cluster says of one of its VMs.
type Ownership struct {
	// Group is the VM's resource group, Node the node that has it.
	Group string `json:"group"`
	Node  string `json:"node"`
	// Here says that this host is that node. Where it is not, what this host says of the VM is a remnant, or about to end: the owner's word counts.
	Here bool `json:"here"`
}

// clusterService is the Windows service that makes a host a node. It comes with the failover clustering feature, disabled until the host joins a cluster.
const clusterService = "ClusSvc"

// inCluster asks the cluster's provider. On a host without the failover clustering feature its namespace does not exist, and there is nothing.
func (h *Host) inCluster(ctx context.Context, wql string) ([]wmi.Instance, error) {
	if h.cluster == nil {
		return nil, nil
	}
	found, err := h.cluster.Query(ctx, wql)
	if errors.Is(err, wmi.ErrInvalidNamespace) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	return found, nil
}

// withoutCluster judges that the cluster's provider failed, which it does, in more ways than one, wherever it is installed and no cluster service runs. Then
// the host is in no cluster, as a node whose service is stopped is in none for now. An error where the service runs, or is about to.
func (h *Host) withoutCluster(ctx context.Context, failure error) (stopped bool, err error) {
	s, found, err := h.service(ctx, clusterService)
	switch {
	case err != nil:
		return false, errors.Join(failure, err)
	case found && s.state != serviceStopped:
		return false, failure
	}
	return found && !s.disabled, nil
}

// describeCluster adds the host's cluster and the volumes that its nodes share.
func (h *Host) describeCluster(ctx context.Context, info *HostInfo) error {
	found, err := h.inCluster(ctx, "SELECT * FROM MSCluster_Cluster")
	if err != nil {
		info.ClusterStopped, err = h.withoutCluster(ctx, err)
	}
	if err != nil || len(found) == 0 {
		return err
	}
	r := &reader{Instance: found[0]}
	info.Cluster = &Cluster{Name: r.text("Name"), BackupInProgress: r.number("BackupInProgress") != 0}
	if r.has("ClusterFunctionalLevel") { // Server 2012 R2 and later
		info.Cluster.Level = int(r.number("ClusterFunctionalLevel"))
	}
	if r.err != nil {
		return fmt.Errorf("read the cluster: %w", r.err)
	}
	shared, err := h.inCluster(ctx, "SELECT * FROM MSCluster_ClusterSharedVolume")
	if err != nil {
		return err
	}
	for _, instance := range shared {
		name, err := instance.String("Name")
		if err != nil {
			return fmt.Errorf("read the cluster's volumes: %w", err)
		}
		// A volume that this node cannot reach is one without space, not a reason to tell nothing.
		space, _ := h.files.Space(ctx, joinPath(name, "x"))
		info.Volumes = append(info.Volumes, Volume{Name: name, Free: space.Free, Total: space.Total, Shared: true})
	}
	return nil
}

// vmIDProperty finds the VM in the private properties of its resource, an embedded instance, which is text here.
var vmIDProperty = regexp.MustCompile(`(?is)"VmID".{0,400}?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})`)

// ownerships are what the cluster says of its VMs, by the VMs' ids. VMs that are not among them are none of the cluster's.
func (h *Host) ownerships(ctx context.Context, info HostInfo) (map[string]Ownership, error) {
	if info.Cluster == nil {
		return nil, nil
	}
	resources, err := h.inCluster(ctx, "SELECT * FROM MSCluster_Resource WHERE Type='Virtual Machine'")
	if err != nil {
		return nil, err
	}
	out := map[string]Ownership{}
	for _, resource := range resources {
		r := &reader{Instance: resource}
		private, node, group := r.text("PrivateProperties"), r.text("OwnerNode"), r.text("OwnerGroup")
		if r.err != nil {
			return nil, fmt.Errorf("read the cluster's virtual machines: %w", r.err)
		}
		if m := vmIDProperty.FindStringSubmatch(private); m != nil {
			out[strings.ToUpper(m[1])] = Ownership{Group: group, Node: node, Here: sameNode(node, info.Name)}
		}
	}
	return out, nil
}

// sameNode compares the names of computers, one of which may have its domain behind it.
func sameNode(a, b string) bool {
	a, _, _ = strings.Cut(a, ".")
	b, _, _ = strings.Cut(b, ".")
	return strings.EqualFold(a, b)
}
