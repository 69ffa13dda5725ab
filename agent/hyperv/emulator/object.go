package emulator

import (
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// object is one WMI object at this moment, with what it belongs to.
type object struct {
	class      string
	properties map[string]any
	vm         *vm
	clustered  string    // the folder of the clustered VM whose group it is
	settings   *settings // that it is, or is a part of
	part       part
}

// part is the place of a device in its settings.
type part struct {
	kind    partKind
	address address // of disks and drives
	index   int     // of controllers and adapters
}

type partKind string

const (
	partNone       partKind = ""
	partMemory     partKind = "memory"
	partProcessor  partKind = "processor"
	partController partKind = "controller"
	partDrive      partKind = "drive"
	partDisk       partKind = "disk"
	partDVD        partKind = "DVD drive"
	partImage      partKind = "DVD image"
	partPort       partKind = "port"
	partConnection partKind = "connection"
	partVSS        partKind = "vss"
)

// settings is the definition of a VM, or of it at a checkpoint.
type settings struct {
	vm       *vm
	snapshot *snapshotRecord // nil for the VM itself
	config   vmConfig
}

func (s *settings) id() string {
	if s.snapshot != nil {
		return s.snapshot.ID
	}
	return s.vm.record.ID
}

// instanceID is that of the settings object, or of a part of it.
func (s *settings) instanceID(names ...string) string {
	return strings.Join(append([]string{"Microsoft:" + s.id()}, names...), `\`)
}

// allSettings are those of a VM and its checkpoints.
func (v *vm) allSettings() []*settings {
	out := []*settings{{vm: v, config: v.config}}
	for _, s := range v.record.Snapshots {
		out = append(out, &settings{vm: v, snapshot: s, config: s.Config})
	}
	return out
}

// path is the object path of an object in the virtualization namespace. It needs only the properties of its key.
func (h *Host) path(class string, key map[string]any) string {
	c, ok := h.schema.Class(wmi.NamespaceVirtualization, class)
	if !ok {
		return ""
	}
	return c.Path(h.config.Name, key)
}

// find returns the object at a path. The caller holds h.mu.
func (h *Host) find(path string) (object, bool) {
	class, ok := h.schema.Class(wmi.NamespaceVirtualization, schema.PathClass(path))
	if !ok {
		return object{}, false
	}
	for _, o := range h.objects(class.Name) {
		if schema.SamePath(class.Path(h.config.Name, o.properties), path) {
			return o, true
		}
	}
	return object{}, false
}

// derivedGUID makes an id that stays the same, from the ids and names that it depends on.
func derivedGUID(names ...string) string {
	return strings.ToUpper(uuid.NewSHA1(uuid.NameSpaceOID, []byte(strings.Join(names, "\x00"))).String())
}

// datetime is the text form of a CIM datetime.
func datetime(t time.Time) string {
	return t.UTC().Format("20060102150405.000000") + "+000"
}

// embed writes an instance as text, as string parameters have it (CIM DTD 2.0).
func embed(class string, properties map[string]any) string {
	type property struct {
		XMLName xml.Name
		Name    string   `xml:"NAME,attr"`
		Type    string   `xml:"TYPE,attr"`
		Value   *string  `xml:"VALUE"`
		Array   []string `xml:"VALUE.ARRAY>VALUE,omitempty"`
	}
	type instance struct {
		XMLName    xml.Name `xml:"INSTANCE"`
		ClassName  string   `xml:"CLASSNAME,attr"`
		Properties []property
	}
	out := instance{ClassName: class}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		p := property{XMLName: xml.Name{Local: "PROPERTY"}, Name: name, Type: "string"}
		text := ""
		switch v := properties[name].(type) {
		case nil:
			continue
		case string:
			text = v
		case bool:
			p.Type, text = "boolean", strings.ToUpper(fmt.Sprint(v))
		default:
			p.Type, text = "uint64", fmt.Sprint(v)
		}
		p.Value = &text
		out.Properties = append(out.Properties, p)
	}
	data, err := xml.Marshal(out)
	if err != nil {
		return "" // no type above can fail
	}
	return string(data)
}
