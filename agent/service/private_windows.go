package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// privateSDDL gives a folder, and what comes to lie in it, to SYSTEM and Administrators alone: nothing is inherited from above (PAI), everything below
// inherits it (OICI).
const privateSDDL = "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

// Folder is the folder of an installation.
func Folder() (string, error) {
	data, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
	if err != nil {
		return "", fmt.Errorf("find %%ProgramData%%: %w", err)
	}
	return filepath.Join(data, Name), nil
}

// MakePrivate makes a folder that SYSTEM and Administrators alone may open, or makes sure that one is such. Everybody may make folders in %ProgramData%, so one that
// somebody else made is refused: he may hold it open.
func MakePrivate(dir string) error {
	if !windows.GetCurrentProcessToken().IsElevated() {
		return fmt.Errorf("make folder %s: run this as administrator", dir)
	}
	wanted, err := windows.SecurityDescriptorFromString(privateSDDL)
	if err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	err = windows.CreateDirectory(name, &windows.SecurityAttributes{
		Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: wanted,
	})
	if err == nil {
		return checkFolder(dir)
	}
	if !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	if err := checkFolder(dir); err == nil || !errors.Is(err, ErrNotPrivate) {
		return err
	}
	if err := tighten(dir, wanted); err != nil {
		return err
	}
	return checkFolder(dir)
}

// tighten takes a folder of an administrator away from all others.
func tighten(dir string, wanted *windows.SECURITY_DESCRIPTOR) error {
	descriptor, err := describe(dir)
	if err != nil {
		return err
	}
	if err := checkOwner(descriptor); err != nil {
		return fmt.Errorf("folder %s: %w: remove it and try again", dir, err)
	}
	acl, _, err := wanted.DACL()
	if err == nil {
		err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT,
			windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, acl, nil)
	}
	if err != nil {
		return fmt.Errorf("take folder %s away from others: %w", dir, err)
	}
	return nil
}

// checkFolder returns ErrNotPrivate when a folder is somebody else's, or others may get at it.
func checkFolder(path string) error { return check(path, checkOwner, checkAccess) }

// checkFile returns ErrNotPrivate when others may read or change a file. Whose it is does not matter: only those who may make files in its folder could be.
func checkFile(path string) error { return check(path, checkAccess) }

func check(path string, checks ...func(*windows.SECURITY_DESCRIPTOR) error) error {
	descriptor, err := describe(path)
	if err != nil {
		return err
	}
	for _, passes := range checks {
		err = errors.Join(err, passes(descriptor))
	}
	if err != nil {
		return fmt.Errorf("%s: %w: let SYSTEM and Administrators alone have it, as in icacls \"%s\" /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F",
			path, err, path)
	}
	return nil
}

func describe(path string) (*windows.SECURITY_DESCRIPTOR, error) {
	descriptor, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return nil, &os.PathError{Op: "ask who may read", Path: path, Err: err}
	}
	return descriptor, nil
}

// checkOwner refuses what belongs to somebody else, for an owner may change who has access.
func checkOwner(descriptor *windows.SECURITY_DESCRIPTOR) error {
	owner, _, err := descriptor.Owner()
	if err != nil {
		return err
	}
	if trusted, err := isTrusted(owner); err != nil || trusted {
		return err
	}
	return fmt.Errorf("%w: it belongs to %s", ErrNotPrivate, nameOf(owner))
}

// harmless are the rights that let nobody learn or change anything.
const harmless = windows.SYNCHRONIZE | windows.FILE_READ_ATTRIBUTES | windows.READ_CONTROL

// checkAccess refuses a list of rights that gives others any that matters.
func checkAccess(descriptor *windows.SECURITY_DESCRIPTOR) error {
	acl, _, err := descriptor.DACL()
	if errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) || err == nil && acl == nil {
		return fmt.Errorf("%w: everybody may do everything", ErrNotPrivate)
	}
	if err != nil {
		return err
	}
	for i := range uint32(acl.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, i, &entry); err != nil {
			return err
		}
		switch {
		case entry.Header.AceType == windows.ACCESS_DENIED_ACE_TYPE:
			continue
		case entry.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE:
			return fmt.Errorf("%w: an entry of its access list cannot be judged (type %d)", ErrNotPrivate, entry.Header.AceType)
		}
		holder := (*windows.SID)(unsafe.Pointer(&entry.SidStart))
		if trusted, err := isTrusted(holder); err != nil {
			return err
		} else if !trusted && uint32(entry.Mask)&^harmless != 0 {
			return fmt.Errorf("%w: %s", ErrNotPrivate, nameOf(holder))
		}
	}
	return nil
}

// isTrusted says whether an account may have the agent's secrets: SYSTEM, Administrators, the one that runs this process, or the entry that stands for
// whoever makes a file.
func isTrusted(account *windows.SID) (bool, error) {
	for _, known := range []windows.WELL_KNOWN_SID_TYPE{
		windows.WinLocalSystemSid, windows.WinBuiltinAdministratorsSid, windows.WinCreatorOwnerSid, windows.WinCreatorOwnerRightsSid,
	} {
		if account.IsWellKnown(known) {
			return true, nil
		}
	}
	self, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return false, fmt.Errorf("ask who runs this process: %w", err)
	}
	return account.Equals(self.User.Sid), nil
}

// nameOf an account, for people.
func nameOf(account *windows.SID) string {
	name, domain, _, err := account.LookupAccount("")
	if err != nil {
		return account.String()
	}
	return domain + `\` + name
}
