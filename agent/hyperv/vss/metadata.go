package vss

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
)

// metadataXML is the part of a Writer Metadata Document (IVssExamineWriterMetadata::SaveAsXML) that we read.
type metadataXML struct {
	XMLName        xml.Name `xml:"WRITER_METADATA"`
	Identification struct {
		WriterID   string `xml:"writerId,attr"`
		InstanceID string `xml:"instanceId,attr"`
	} `xml:"IDENTIFICATION"`
	Locations struct {
		Groups    []componentXML `xml:"FILE_GROUP"`
		Databases []componentXML `xml:"DATABASE"`
	} `xml:"BACKUP_LOCATIONS"`
}

type componentXML struct {
	LogicalPath string    `xml:"logicalPath,attr"`
	Name        string    `xml:"componentName,attr"`
	Caption     string    `xml:"caption,attr"`
	Files       []fileXML `xml:"FILE_LIST"`
	Databases   []fileXML `xml:"DATABASE_FILES"`
	Logs        []fileXML `xml:"DATABASE_LOGFILES"`
}

type fileXML struct {
	Path      string `xml:"path,attr"`
	Pattern   string `xml:"filespec,attr"`
	Recursive string `xml:"recursive,attr"`
}

// ParseMetadata reads the metadata of one writer. ok is false for another writer than Hyper-V's. The volumes are by their paths alone: see hostfs.VolumeOf.
func ParseMetadata(document string) (components []Component, ok bool, err error) {
	var m metadataXML
	if err := xml.Unmarshal([]byte(document), &m); err != nil {
		return nil, false, fmt.Errorf("read the metadata of a VSS writer: %w", err)
	}
	if !strings.EqualFold(strings.Trim(m.Identification.WriterID, "{}"), WriterID) {
		return nil, false, nil
	}
	components = []Component{}
	for _, group := range m.Locations.Groups {
		components = append(components, group.component(m.Identification.InstanceID, FileGroup))
	}
	for _, database := range m.Locations.Databases {
		components = append(components, database.component(m.Identification.InstanceID, Database))
	}
	return components, true, nil
}

func (x componentXML) component(writer string, kind ComponentType) Component {
	c := Component{
		Writer: strings.ToUpper(strings.Trim(writer, "{}")), Type: kind, LogicalPath: x.LogicalPath, Name: x.Name, Caption: x.Caption, Files: []FileSpec{},
	}
	for _, files := range [][]fileXML{x.Files, x.Databases, x.Logs} {
		for _, f := range files {
			path := strings.TrimSuffix(f.Path, `\`)
			c.Files = append(c.Files, FileSpec{
				Path: path, Pattern: f.Pattern, Recursive: strings.EqualFold(f.Recursive, "yes") || strings.EqualFold(f.Recursive, "true"), Volume: hostfs.VolumeOf(path + `\`),
			})
		}
	}
	return c
}
