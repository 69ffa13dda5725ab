package shim

import (
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
