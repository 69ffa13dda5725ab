package hostfs

import (
	"fmt"

	"github.com/Microsoft/go-winio"
)

// Privileges are those with which a Native reads and writes past the access lists of files, as backup programs do: of a virtual machine's folder, which its owner
// may have closed even to SYSTEM.
var Privileges = []string{winio.SeBackupPrivilege, winio.SeRestorePrivilege}

// EnablePrivileges enables Privileges for the whole process. After an error a Native opens what access lists let it.
func EnablePrivileges() error {
	if err := winio.EnableProcessPrivileges(Privileges); err != nil {
		return fmt.Errorf("read and write past access lists: %w", err)
	}
	return nil
}
