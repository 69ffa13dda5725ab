package vss

import (
	"slices"
	"strings"
)

// Component is what the Hyper-V writer offers for one virtual machine.
type Component struct {
	// Writer is the instance of the writer, which changes with each start of Hyper-V's management service.
	Writer string        `json:"writer"`
	Type   ComponentType `json:"type"`
	// LogicalPath and Name are taken from the writer's metadata and never made up. Name is the virtual machine's id.
	LogicalPath string `json:"logicalPath,omitempty"`
	Name        string `json:"name"`
	// Caption tells for people, and in its first words for programs, how the writer would back the machine up: see Mode.
	Caption string `json:"caption"`
	// Files are all that belongs to the machine: configuration, disks, checkpoints.
	Files []FileSpec `json:"files"`
}

// ComponentType is VSS_COMPONENT_TYPE.
type ComponentType int

// The component types.
const (
	Database  ComponentType = 1
	FileGroup ComponentType = 2
)

// FileSpec names files of a component.
type FileSpec struct {
	// Path is a folder without trailing backslash, Pattern a file name which may hold the wildcards * and ?.
	Path    string `json:"path"`
	Pattern string `json:"pattern"`
	// Recursive includes the folders below.
	Recursive bool `json:"recursive,omitempty"`
	// Volume is the one that Path lies on, with a trailing backslash: a drive, the folder of a cluster shared volume, or any folder that a volume is mounted
	// in. "" for a path on none, such as a UNC path. A volume that is mounted below the folder of a recursive entry is not told apart.
	Volume string `json:"volume,omitempty"`
}

// Mode is how the writer would back a virtual machine up.
type Mode string

// The modes.
const (
	// Online: the guest quiesces and runs on.
	Online Mode = "Online"
	// OfflineMode: the guest cannot quiesce. Up to Windows Server 2012 the machine is saved during the snapshot, and what a later host does shows only then.
	OfflineMode Mode = "Offline"
	// PartialMode: some files lie on no volume of the host. A snapshot set cannot hold them, and a writer refuses to take part for the others alone
	// (WriterInconsistent).
	PartialMode Mode = "Partial"
	// UnknownMode: the caption says it in words that we do not know, as on a host in another language.
	UnknownMode Mode = "Unknown"
)

// captions are the first words of captions: of Windows Server 2012 and older, then of 2012 R2 and later.
var captions = []struct {
	prefix string
	mode   Mode
}{
	{`backup using child partition snapshot\`, Online}, {`backup using saved state\`, OfflineMode},
	{`online\`, Online}, {`offline\`, OfflineMode},
}

// Mode reads the caption, and where the files lie.
func (c Component) Mode() Mode {
	if _, elsewhere := c.Volumes(); len(elsewhere) > 0 {
		return PartialMode
	}
	for _, known := range captions {
		if strings.HasPrefix(strings.ToLower(c.Caption), known.prefix) {
			return known.mode
		}
	}
	return UnknownMode
}

// Volumes lists the volumes of the component's files, in order, each once, and the files that lie elsewhere: on none that we can tell.
func (c Component) Volumes() (volumes []string, elsewhere []FileSpec) {
	for _, file := range c.Files {
		switch {
		case file.Volume == "":
			elsewhere = append(elsewhere, file)
		case !slices.ContainsFunc(volumes, func(v string) bool { return strings.EqualFold(v, file.Volume) }):
			volumes = append(volumes, file.Volume)
		}
	}
	slices.Sort(volumes)
	return volumes, elsewhere
}

// Find returns the component of a virtual machine by its id.
func Find(components []Component, vmID string) (Component, bool) {
	for _, c := range components {
		if strings.EqualFold(strings.Trim(c.Name, "{}"), vmID) {
			return c, true
		}
	}
	return Component{}, false
}
