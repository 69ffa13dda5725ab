package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
	"go.yaml.in/yaml/v3"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// clusterService is the Windows service of a node. It is disabled where the feature is installed and the host is no node.
const clusterService = "ClusSvc"

// sharedVolume is the cluster shared volume, on which the clustered VMs lie.
const sharedVolume = `C:\ClusterStorage\Volume1`

// sharedPrefix starts the key of a clustered VM; what follows is its folder on the shared volume.
const sharedPrefix = "shared/"

// clusterConfig is cluster.yaml, which lies on the shared volume: what its nodes know of the cluster.
type clusterConfig struct {
	Name string `yaml:"name"`
	// FunctionalLevel is 8 for Windows Server 2012 R2, 9 for 2016, 10 for 2019.
	FunctionalLevel int64 `yaml:"functionalLevel"`
	// Nodes are the names of the hosts. The first owns the VMs that have no owner.
	Nodes []string `yaml:"nodes"`
	// Owners are the nodes of the VMs, by their folders.
	Owners map[string]string `yaml:"owners,omitempty"`
}

// cluster is a host's membership of a failover cluster. Two hosts, in one process or in two, are nodes of one when their host.yaml names the same folder.
type cluster struct {
	dir      string
	presence *flock.Flock            // that says that the node is up
	held     map[string]*flock.Flock // of the VMs that run on this node, by their folders
}

// joinCluster makes the host a node, if its host.yaml says so.
func (h *Host) joinCluster() error {
	if h.config.Cluster == "" {
		return nil
	}
	c := &cluster{dir: filepath.Join(filepath.Dir(h.dir), h.config.Cluster), held: map[string]*flock.Flock{}}
	config, err := c.config()
	if err != nil {
		return err
	}
	if !slices.Contains(config.Nodes, h.config.Name) {
		return fmt.Errorf("cluster.yaml: %s is none of its nodes", h.config.Name)
	}
	if err := os.MkdirAll(filepath.Join(c.dir, privateFolder, "nodes"), 0o755); err != nil {
		return err
	}
	c.presence = flock.New(c.presencePath(h.config.Name))
	if up, err := c.presence.TryLock(); err != nil || !up {
		return errors.Join(fmt.Errorf("another host is the node %s", h.config.Name), err)
	}
	h.cluster = c
	return nil
}

func (c *cluster) presencePath(node string) string {
	return filepath.Join(c.dir, privateFolder, "nodes", node)
}

// leave gives the VMs up. It may be called for a host outside of a cluster.
func (c *cluster) leave() error {
	if c == nil {
		return nil
	}
	errs := []error{c.presence.Unlock()}
	for _, lock := range c.held {
		errs = append(errs, lock.Unlock())
	}
	return errors.Join(errs...)
}

func (c *cluster) config() (clusterConfig, error) {
	var out clusterConfig
	text, err := os.ReadFile(filepath.Join(c.dir, "cluster.yaml"))
	if err != nil {
		return out, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&out); err != nil {
		return out, fmt.Errorf("cluster.yaml: %w", err)
	}
	if out.Name == "" || len(out.Nodes) == 0 || out.FunctionalLevel == 0 {
		return out, errors.New("cluster.yaml: name, functionalLevel and nodes are needed")
	}
	return out, nil
}

// owner is the node that a VM belongs to.
func (c clusterConfig) owner(folder string) string {
	if node := c.Owners[folder]; node != "" {
		return node
	}
	return c.Nodes[0]
}

// folders are those of the clustered VMs, wherever they run.
func (c *cluster) folders() []string {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(c.dir, e.Name(), "vm.yaml")); err == nil {
			out = append(out, e.Name())
		}
	}
	return out
}

// take says which clustered VMs run here. One that another node has not let go yet comes later.
func (c *cluster) take(node string) ([]string, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	var mine []string
	for _, folder := range c.folders() {
		if config.owner(folder) != node {
			continue
		}
		if c.held[folder] == nil {
			path := filepath.Join(c.dir, folder, privateFolder)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return nil, err
			}
			lock := flock.New(filepath.Join(path, "owner"))
			if locked, err := lock.TryLock(); err != nil || !locked {
				continue
			}
			c.held[folder] = lock
		}
		mine = append(mine, sharedPrefix+folder)
	}
	return mine, nil
}

// letGo lets another node have a VM.
func (c *cluster) letGo(folder string) error {
	lock := c.held[folder]
	delete(c.held, folder)
	if lock == nil {
		return nil
	}
	return lock.Unlock()
}

// move makes a node the owner of a VM. The nodes follow when they look the next time; the VM, with its checkpoints, reference points and merges, stops on the
// one before it starts on the other.
func (c *cluster) move(folder, node string) error {
	lock := flock.New(filepath.Join(c.dir, privateFolder, "lock"))
	if err := lock.Lock(); err != nil {
		return err
	}
	config, err := c.config()
	if err == nil && !slices.Contains(config.Nodes, node) {
		err = fmt.Errorf("%s is no node of the cluster", node)
	}
	if err == nil {
		if config.Owners == nil {
			config.Owners = map[string]string{}
		}
		config.Owners[folder] = node
		var text []byte
		if text, err = yaml.Marshal(config); err == nil {
			err = writeFile(filepath.Join(c.dir, "cluster.yaml"), text)
		}
	}
	return errors.Join(err, lock.Unlock())
}

// moveGroup is MSCluster_ResourceGroup.MoveToNewNode, which returns no value and answers when the move was begun.
func (c call) moveGroup() (wmi.Result, error) {
	node, _ := c.in["NodeName"].(string)
	return wmi.Result{}, c.host.cluster.move(c.target.clustered, node)
}
