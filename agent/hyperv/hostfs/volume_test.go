package hostfs

import "testing"

func TestVolumeOfAPath(t *testing.T) {
	m := Mapping{Root: t.TempDir(), Volumes: []Volume{
		{Prefix: `C:\ClusterStorage\Volume1`, Folder: "1", SizeBytes: 1 << 20}, {Prefix: `C:\ClusterStorage\Volume2`, Folder: "2", SizeBytes: 2 << 20},
		{Prefix: `D:\Archive`, Folder: "3", SizeBytes: 3 << 20, Mounted: true}, {Prefix: `D:\VMs`, Folder: "."}, {Prefix: "D:", Folder: "."},
	}}
	l, err := NewLocal(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for path, want := range map[string]struct {
		volume string
		total  int64 // 0 is that of the file system below
	}{
		`C:\ClusterStorage\Volume1\crm\a.vhdx`: {`C:\ClusterStorage\Volume1\`, 1 << 20}, `c:\clusterstorage\Volume2\a.vhdx`: {`C:\ClusterStorage\Volume2\`, 2 << 20},
		`d:\archive\crm\a.vhdx`: {`D:\Archive\`, 3 << 20}, `D:\Archives\a.vhdx`: {`D:\`, 0}, `D:\VMs\crm`: {`D:\`, 0}, `d:\`: {`D:\`, 0},
	} {
		space, err := l.Space(t.Context(), path)
		if err != nil || space.Volume != want.volume || want.total != 0 && space.Total != want.total {
			t.Errorf("%s: %+v, %v", path, space, err)
		}
	}
	for _, path := range []string{`\\nas\vms\a.vhdx`, `\\?\Volume{1}\a.vhdx`, "a.vhdx", ""} {
		if volume := m.VolumeOf(path); volume != "" {
			t.Errorf("%q lies on %q", path, volume)
		}
	}
}
