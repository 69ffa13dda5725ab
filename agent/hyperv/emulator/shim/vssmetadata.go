package shim

import (
	"context"
	"encoding/xml"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// metadataDocument is a Writer Metadata Document as IVssExamineWriterMetadata::SaveAsXML gives it.
type metadataDocument struct {
	XMLName        xml.Name `xml:"WRITER_METADATA"`
	Namespace      string   `xml:"xmlns,attr"`
	Version        string   `xml:"version,attr"`
	Identification struct {
		WriterID     string `xml:"writerId,attr"`
		InstanceID   string `xml:"instanceId,attr"`
		FriendlyName string `xml:"friendlyName,attr"`
		Usage        string `xml:"usage,attr"`
		DataSource   string `xml:"dataSource,attr"`
	} `xml:"IDENTIFICATION"`
	Groups []metadataGroup `xml:"BACKUP_LOCATIONS>FILE_GROUP"`
}

type metadataGroup struct {
	LogicalPath string         `xml:"logicalPath,attr"`
	Name        string         `xml:"componentName,attr"`
	Caption     string         `xml:"caption,attr"`
	Selectable  string         `xml:"selectable,attr"`
	Files       []metadataFile `xml:"FILE_LIST"`
}

type metadataFile struct {
	Path       string `xml:"path,attr"`
	Pattern    string `xml:"filespec,attr"`
	BackupType int    `xml:"filespecBackupType,attr"`
}

// allBackupTypes is VSS_FSBT_ALL_BACKUP_REQUIRED | VSS_FSBT_ALL_SNAPSHOT_REQUIRED.
const allBackupTypes = 3855

func writerMetadata(instance string, components []vss.Component) metadataDocument {
	d := metadataDocument{Namespace: "x-schema:#VssWriterMetadataInfo", Version: "1.2"}
	d.Identification.WriterID, d.Identification.InstanceID = vss.WriterID, instance
	d.Identification.FriendlyName, d.Identification.Usage, d.Identification.DataSource = "Microsoft Hyper-V VSS Writer", "USER_DATA", "OTHER"
	for _, c := range components {
		group := metadataGroup{LogicalPath: c.LogicalPath, Name: c.Name, Caption: c.Caption, Selectable: "yes"}
		for _, f := range c.Files {
			group.Files = append(group.Files, metadataFile{Path: f.Path + `\`, Pattern: f.Pattern, BackupType: allBackupTypes})
		}
		d.Groups = append(d.Groups, group)
	}
	return d
}

// metadataCount is the number of writers: that of Hyper-V, or none.
func (b *vssBackup) metadataCount() (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.components == nil {
		return 0, []any{uint32(0)}
	}
	return 0, []any{uint32(1)}
}

// metadata is the writer's identity and its document.
func (b *vssBackup) metadata() (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.components == nil {
		return codeOf(vss.ObjectNotFound), nil
	}
	instance := "00000000-0000-0000-0000-000000000000"
	if len(b.components) > 0 {
		instance = b.components[0].Writer
	}
	document, err := xml.Marshal(writerMetadata(instance, b.components))
	if err != nil {
		return unexpected, nil
	}
	return 0, []any{"{" + instance + "}", b.process.keep(vssMetadata(document))}
}

// vssMetadata is one IVssExamineWriterMetadata: its document.
type vssMetadata string

func (m vssMetadata) call(_ context.Context, function string, _ []any) (uint32, []any) {
	switch function {
	case "Release":
		return 0, nil
	case "SaveAsXML":
		return 0, []any{string(m)}
	}
	return notImplemented, nil
}
