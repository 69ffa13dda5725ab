package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
)

// hostConfig is host.yaml: what the host is. The file may be missing.
type hostConfig struct {
	Name      string                  `yaml:"name,omitempty"`
	OSVersion string                  `yaml:"osVersion,omitempty"` // 2012, 2012R2, 2016, 2019, 2022 or 2025
	Edition   string                  `yaml:"edition,omitempty"`   // server or desktop
	Volumes   map[string]volumeConfig `yaml:"volumes,omitempty"`   // by drive letter
	Mounts    map[string]volumeConfig `yaml:"mounts,omitempty"`    // by the folder, such as D:\Archive, that the volume is mounted in
	Switches  []string                `yaml:"switches,omitempty"`
	// RenamedSwitches has the names that switches had before, by their present ones: a switch keeps its id.
	RenamedSwitches map[string]string `yaml:"renamedSwitches,omitempty"`
	// Cluster is the folder beside the host's own that is the shared volume of its failover cluster, with a cluster.yaml in it.
	Cluster string `yaml:"cluster,omitempty"`
	// FailoverClustering says that the feature is installed, as it is on every node, though the host may be none.
	FailoverClustering bool `yaml:"failoverClustering,omitempty"`
	// Processors is how many logical processors the host has.
	Processors int64 `yaml:"processors,omitempty"`
	// OfflineBackupSaves has the VSS writer of Windows Server 2012 R2 and later save a running VM that cannot quiesce, as older ones always do, instead of
	// taking a checkpoint without asking the guest.
	OfflineBackupSaves bool `yaml:"offlineBackupSaves,omitempty"`
	// JobMillis is how long a job takes at least.
	JobMillis int64 `yaml:"jobMillis,omitempty"`
	// MergeBytesPerSecond is how fast checkpoints are merged. Zero does not slow them down.
	MergeBytesPerSecond int64 `yaml:"mergeBytesPerSecond,omitempty"`
}

type volumeConfig struct {
	SizeBytes int64 `yaml:"sizeBytes,omitempty"`
}

const (
	defaultJobMillis = 50
	vmVolume         = `D:\VMs`
	volumesFolder    = ".volumes"
	privateFolder    = ".hyperv"
)

func loadHostConfig(dir string) (hostConfig, error) {
	var c hostConfig
	text, err := os.ReadFile(filepath.Join(dir, "host.yaml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("read host.yaml: %w", err)
	}
	setDefault(&c.Name, "HV01")
	setDefault(&c.OSVersion, "2022")
	setDefault(&c.Edition, "server")
	setDefault(&c.Processors, 64)
	setDefault(&c.JobMillis, defaultJobMillis)
	if c.Volumes == nil {
		c.Volumes = map[string]volumeConfig{}
	}
	for _, always := range []string{"C", "D"} { // Windows lies on C:, the VMs on D:
		if _, known := c.Volumes[always]; !known {
			c.Volumes[always] = volumeConfig{}
		}
	}
	if len(c.Switches) == 0 {
		c.Switches = []string{"LAN"}
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("read host.yaml: %w", err)
	}
	return c, nil
}

func (c *hostConfig) check() error {
	if builds[c.OSVersion] == "" {
		return fmt.Errorf("osVersion: %q is none of 2012, 2012R2, 2016, 2019, 2022 and 2025", c.OSVersion)
	}
	for letter, v := range c.Volumes {
		if !regexp.MustCompile(`^[A-Z]$`).MatchString(letter) || v.SizeBytes < 0 {
			return fmt.Errorf("volumes: %q is no drive letter from A to Z with a sizeBytes above zero", letter)
		}
	}
	for folder, v := range c.Mounts {
		if v.SizeBytes < 0 || !regexp.MustCompile(`^[A-Z]:(\\[\w -]+)+$`).MatchString(folder) {
			return fmt.Errorf(`mounts: %q is no folder such as D:\Archive with a sizeBytes above zero`, folder)
		}
	}
	if c.Cluster != filepath.Base(c.Cluster) && c.Cluster != "" {
		return fmt.Errorf("cluster: %q is no folder beside that of the host", c.Cluster)
	}
	if c.Processors < 0 || c.JobMillis < 0 || c.MergeBytesPerSecond < 0 {
		return fmt.Errorf("processors, jobMillis and mergeBytesPerSecond cannot be negative")
	}
	return oneOf("edition", c.Edition, "server", "desktop")
}

func (c *hostConfig) jobTime() time.Duration { return time.Duration(c.JobMillis) * time.Millisecond }

// letters are the drive letters in order.
func (c *hostConfig) letters() []string {
	var out []string
	for letter := range c.Volumes {
		out = append(out, letter)
	}
	slices.Sort(out)
	return out
}

// mountFolder is where the volume that is mounted in a folder lies, below volumesFolder.
func mountFolder(folder string) string { return strings.NewReplacer(":", "", `\`, "_").Replace(folder) }

// mapping lays the volumes out below dir: the folder itself is D:\VMs, X:\ lies in .volumes/X, and what is mounted in X:\some\folder in .volumes/X_some_folder.
func (c *hostConfig) mapping(dir string) hostfs.Mapping {
	m, below := hostfs.Mapping{Root: dir}, "."
	if c.Cluster != "" {
		m.Root, below = filepath.Dir(dir), filepath.Base(dir)
		m.Volumes = append(m.Volumes, hostfs.Volume{Prefix: sharedVolume, Folder: c.Cluster})
	}
	m.Shadows = path.Join(below, privateFolder, "shadows")
	for _, folder := range slices.Backward(slices.Sorted(maps.Keys(c.Mounts))) { // what is mounted within another one comes first
		v := c.Mounts[folder]
		m.Volumes = append(m.Volumes, hostfs.Volume{
			Prefix: folder, Folder: path.Join(below, volumesFolder, mountFolder(folder)), SizeBytes: v.SizeBytes, Mounted: true,
		})
	}
	m.Volumes = append(m.Volumes, hostfs.Volume{Prefix: vmVolume, Folder: below, SizeBytes: c.Volumes["D"].SizeBytes})
	for _, letter := range c.letters() {
		m.Volumes = append(m.Volumes, hostfs.Volume{
			Prefix: letter + ":", Folder: path.Join(below, volumesFolder, letter), SizeBytes: c.Volumes[letter].SizeBytes,
		})
	}
	return m
}
