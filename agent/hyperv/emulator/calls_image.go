package emulator

import (
	"errors"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Msvm_VirtualHardDiskSettingData.Type and Format.
var diskTypes = map[vhdx.Kind]int64{vhdx.Fixed: 2, vhdx.Dynamic: 3, vhdx.Differencing: 4}

const formatVHDX = 3

// image opens the disk file that a call is about.
func (c call) image() (*member, uint32) {
	path, _ := c.in["Path"].(string)
	m, err := diskService{c.host}.open(c.host.ctx, path)
	switch {
	case errors.Is(err, virtdisk.ErrFileNotFound):
		return nil, codeFileNotFound
	case err != nil:
		c.host.log.Info("a disk cannot be opened", "path", path, "error", err)
		return nil, codeFailed
	}
	return m, codeDone
}

func (c call) diskSettingData() (wmi.Result, error) {
	m, code := c.image()
	if code != codeDone {
		return refuse(code)
	}
	defer func() { _ = m.close() }() // read only
	info := m.vhdx.Info()
	return wmi.Result{Out: map[string]any{"SettingData": embed("Msvm_VirtualHardDiskSettingData", map[string]any{
		"Path": m.path, "ParentPath": parentPath(c.host.Mapping(), m.path, m.vhdx), "Type": diskTypes[info.Kind], "Format": int64(formatVHDX),
		"MaxInternalSize": info.VirtualSize, "BlockSize": info.BlockSize, "LogicalSectorSize": info.LogicalSectorSize,
		"PhysicalSectorSize": info.PhysicalSectorSize, "VirtualDiskId": strings.ToUpper(info.VirtualDiskID.String()),
	})}}, nil
}

func (c call) diskState() (wmi.Result, error) {
	m, code := c.image()
	if code != codeDone {
		return refuse(code)
	}
	defer func() { _ = m.close() }() // read only
	info := m.vhdx.Info()
	return wmi.Result{Out: map[string]any{"State": embed("Msvm_VirtualHardDiskState", map[string]any{
		"FileSize": info.FileSize, "PhysicalSectorSize": info.PhysicalSectorSize,
	})}}, nil
}
