package vss_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

const document = `<WRITER_METADATA xmlns="x-schema:#VssWriterMetadataInfo" version="1.2" backupSchema="0">
  <IDENTIFICATION writerId="66841cd4-6ded-4f4b-8f17-fd23f8ddc3de" instanceId="{0a1b2c3d-0000-4000-8000-000000000001}" friendlyName="Microsoft Hyper-V VSS Writer" usage="USER_DATA" dataSource="OTHER"/>
  <RESTORE_METHOD method="RESTORE_IF_CAN_BE_REPLACED" writerRestore="always" rebootRequired="no"/>
  <BACKUP_LOCATIONS>
    <FILE_GROUP logicalPath="" componentName="11111111-1111-4111-8111-111111111111" caption="Online\B&amp;B &quot;crm&quot;" restoreMetadata="no" selectable="yes">
      <FILE_LIST path="D:\VMs\crm\" filespec="system.vhdx" filespecBackupType="3855"/>
      <FILE_LIST path="C:\ClusterStorage\Volume1\crm" filespec="*.avhdx" recursive="yes"/>
    </FILE_GROUP>
    <DATABASE componentName="Host Component" caption="Host Component"><DATABASE_FILES path="C:\ProgramData" filespec="x.xml"/></DATABASE>
  </BACKUP_LOCATIONS>
</WRITER_METADATA>`

func TestMetadataOfTheHyperVWriterIsRead(t *testing.T) {
	all, ok, err := vss.ParseMetadata(document)
	if err != nil || !ok || len(all) != 2 {
		t.Fatalf("%v, %v: %+v", ok, err, all)
	}
	c, found := vss.Find(all, "11111111-1111-4111-8111-111111111111")
	want := vss.Component{
		Writer: "0A1B2C3D-0000-4000-8000-000000000001", Type: vss.FileGroup, Name: "11111111-1111-4111-8111-111111111111", Caption: `Online\B&B "crm"`,
		Files: []vss.FileSpec{
			{Path: `D:\VMs\crm`, Pattern: "system.vhdx", Volume: `D:\`},
			{Path: `C:\ClusterStorage\Volume1\crm`, Pattern: "*.avhdx", Recursive: true, Volume: `C:\ClusterStorage\Volume1\`},
		},
	}
	if !found || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
	if volumes, elsewhere := c.Volumes(); len(elsewhere) > 0 || !reflect.DeepEqual(volumes, []string{`C:\ClusterStorage\Volume1\`, `D:\`}) {
		t.Errorf("%v, %v", volumes, elsewhere)
	}
	if _, ok, err := vss.ParseMetadata(strings.Replace(document, "66841cd4", "1072ae1c", 1)); ok || err != nil {
		t.Errorf("another writer: %v, %v", ok, err)
	}
	if _, _, err := vss.ParseMetadata("<WRITER_METADATA"); err == nil {
		t.Error("half a document was read")
	}
}

func TestCaptionTellsTheMode(t *testing.T) {
	for caption, want := range map[string]vss.Mode{
		`Backup Using Child Partition Snapshot\crm`: vss.Online, `Backup Using Saved State\crm`: vss.OfflineMode,
		`Online\crm`: vss.Online, `Offline\Online\x`: vss.OfflineMode, `Sauvegarde\crm`: vss.UnknownMode, "": vss.UnknownMode,
	} {
		if got := (vss.Component{Caption: caption}).Mode(); got != want {
			t.Errorf("%q is %s, not %s", caption, got, want)
		}
	}
}

func TestComponentWithAFileOnAShareIsPartial(t *testing.T) {
	all, _, err := vss.ParseMetadata(strings.Replace(document, `D:\VMs\crm\`, `\\nas\vms\crm\`, 1))
	if err != nil {
		t.Fatal(err)
	}
	if mode := all[0].Mode(); mode != vss.PartialMode {
		t.Errorf("the mode is %s", mode)
	}
	volumes, elsewhere := all[0].Volumes()
	if !reflect.DeepEqual(volumes, []string{`C:\ClusterStorage\Volume1\`}) || !reflect.DeepEqual(elsewhere, []vss.FileSpec{{Path: `\\nas\vms\crm`, Pattern: "system.vhdx"}}) {
		t.Errorf("%v, %v", volumes, elsewhere)
	}
}

func TestPathInAShadowCopy(t *testing.T) {
	s := vss.Snapshot{Devices: map[string]string{
		`D:\`: `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7`, `C:\ClusterStorage\Volume1\`: `\\?\X9`, `D:\Archive\`: `\\?\X10`,
	}}
	for path, want := range map[string]string{
		`d:\VMs\crm\system.vhdx`:           `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\VMs\crm\system.vhdx`,
		`c:\clusterstorage\Volume1\a.vhdx`: `\\?\X9\a.vhdx`,
		`D:\archive\a.vhdx`:                `\\?\X10\a.vhdx`,
		`D:\Archives\a.vhdx`:               `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\Archives\a.vhdx`,
		`E:\a.vhdx`:                        "", `\\server\share\a.vhdx`: "", `relative.vhdx`: "",
	} {
		if got := s.Path(path); got != want {
			t.Errorf("%s is at %q, not %q", path, got, want)
		}
	}
}

func TestErrorsSayWhetherToTryAgain(t *testing.T) {
	writer := fmt.Errorf("snapshot: %w", &vss.WriterError{State: vss.FailedAtFreeze, Code: vss.WriterTimeout})
	if !vss.Retryable(writer) || !errors.Is(writer, vss.WriterTimeout) {
		t.Errorf("%v", writer)
	}
	if !strings.Contains(writer.Error(), "freeze") || !strings.Contains(writer.Error(), "0x800423F2") {
		t.Errorf("%v", writer)
	}
	for _, err := range []error{vss.InsufficientStorage, vss.ErrNoWriter, &vss.WriterError{State: vss.FailedAtThaw, Code: vss.WriterNonRetryable}} {
		if vss.Retryable(err) {
			t.Errorf("%v", err)
		}
	}
}
