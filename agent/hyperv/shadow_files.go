package hyperv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// VSSNotListed is the reason of a disk that the Hyper-V writer does not list as the VM's.
const VSSNotListed ConcernReason = "NotInComponent"

// Contents are what the shadow copies hold of a VM.
type Contents struct {
	Disks    []FrozenDisk
	Excluded []ExcludedDisk
	// Files are all others that the writer lists: configuration, and the files of the VM's checkpoints.
	Files []ConfigFile
}

// volumes are those that the shadow copies are made of. A disk that lies on none, such as one on a file server, will not be in the image, which Contents says.
// ErrPath when the image could not do without what does.
func (s *Shadow) volumes() ([]string, error) {
	volumes, elsewhere := s.component.Volumes()
	for _, file := range elsewhere {
		if !isDiskOrMedium(file.Pattern) {
			return nil, fmt.Errorf("%w: %s, which belongs to the virtual machine itself, lies on no volume of the host; move it to one with Move-VMStorage",
				ErrPath, joinPath(file.Path, file.Pattern))
		}
	}
	if len(volumes) == 0 {
		return nil, fmt.Errorf("%w: the writer lists no file on a volume of the host", ErrPath)
	}
	return volumes, nil
}

// isDiskOrMedium tells the files of virtual disks, and the images that are put into DVD and floppy drives.
func isDiskOrMedium(name string) bool {
	ending := strings.ToLower(path.Ext(name))
	return diskKind(name, false) != DiskUnknown || ending == ".iso" || ending == ".vfd"
}

// Contents lists what the shadow copies hold, after Snapshot. The writer's list of files is the authority: no other file is read, whatever a disk names as its
// parent. A listed disk that cannot be opened is an error: it would be missing in the image.
func (s *Shadow) Contents(ctx context.Context) (Contents, error) {
	listed, err := s.listed(ctx)
	if err != nil {
		return Contents{}, fmt.Errorf("list the shadow copy of %s: %w", s.vm.Name, err)
	}
	var out Contents
	var used []string
	for _, d := range s.vm.Disks {
		if d.Kind != DiskVHDX {
			out.Excluded = append(out.Excluded, exclusion(d))
			continue
		}
		if !slices.ContainsFunc(listed, func(f string) bool { return strings.EqualFold(f, d.Path) }) {
			out.Excluded = append(out.Excluded, ExcludedDisk{
				Key: d.Key, Path: d.Path, Kind: d.Kind, Reason: VSSNotListed,
				Message: fmt.Sprintf("Disk %s (%s) is not among the files that the Hyper-V VSS writer lists for the virtual machine. The next backup will try again.", d.Key, d.Path),
			})
			continue
		}
		frozen, chain, err := s.freeze(ctx, d, listed)
		if err != nil {
			return Contents{}, fmt.Errorf("disk %s in the shadow copy: %w", d.Key, err)
		}
		out.Disks, used = append(out.Disks, frozen), append(used, chain...)
	}
	out.Files, err = s.others(ctx, listed, used)
	return out, err
}

// listed are the files of the component that exist in the shadow copies, by their paths on the host.
func (s *Shadow) listed(ctx context.Context) ([]string, error) {
	var out []string
	for _, spec := range s.component.Files {
		if spec.Volume == "" {
			continue // see volumes
		}
		found, err := s.match(ctx, spec)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if !slices.ContainsFunc(out, func(f string) bool { return strings.EqualFold(f, p) }) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// match finds the files of one entry of the writer's list. An entry may name what is not there, such as the memory of a VM that was not saved.
func (s *Shadow) match(ctx context.Context, spec vss.FileSpec) ([]string, error) {
	entries, err := s.host.files.ReadDir(ctx, s.snapshot.Path(spec.Path+`\`))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, entry := range entries {
		p := joinPath(spec.Path, entry.Name())
		switch {
		case entry.IsDir() && spec.Recursive:
			below, err := s.match(ctx, vss.FileSpec{Path: p, Pattern: spec.Pattern, Recursive: true})
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
		case !entry.IsDir() && matches(spec.Pattern, entry.Name()):
			out = append(out, p)
		}
	}
	return out, nil
}

// matches tells whether a name fits a pattern of a file specification, which knows * and ?.
func matches(pattern, name string) bool {
	escaped := strings.NewReplacer(`[`, `\[`, `\`, `\\`).Replace(strings.ToLower(pattern))
	ok, err := path.Match(escaped, strings.ToLower(name))
	return err == nil && ok
}

// freeze describes a disk in the shadow copy, and names the files of its chain on the host.
func (s *Shadow) freeze(ctx context.Context, d Disk, listed []string) (FrozenDisk, []string, error) {
	f := FrozenDisk{Key: d.Key, Path: s.snapshot.Path(d.Path), LivePath: d.Path, Place: place(d.instanceID)}
	var chain []string
	for p := d.Path; p != ""; {
		if slices.ContainsFunc(chain, func(seen string) bool { return strings.EqualFold(seen, p) }) || len(chain) == maxChain {
			return FrozenDisk{}, nil, fmt.Errorf("%w: the chain of disk files comes back to %s, or has more than %d members", ErrPath, p, maxChain)
		}
		chain = append(chain, p)
		f.Chain = append(f.Chain, s.snapshot.Path(p))
		member, parent, err := s.inspect(ctx, p, listed)
		if err != nil {
			return FrozenDisk{}, nil, err
		}
		if len(chain) == 1 {
			f.VirtualSize, f.SectorSize, f.DiskID = member.VirtualSize, member.LogicalSectorSize, member.VirtualDiskID.String()
		}
		p = parent
	}
	return f, chain, nil
}

// inspect opens a disk file in the shadow copy and finds its parent by the names that it gives, among the files that the writer lists.
func (s *Shadow) inspect(ctx context.Context, p string, listed []string) (info vhdx.Info, parent string, err error) {
	open := &OpenDisk{}
	defer func() { err = errors.Join(err, open.Close()) }()
	member, err := s.host.openMember(ctx, open, s.snapshot.Path(p))
	if err != nil || member.Kind() != vhdx.Differencing {
		if err == nil {
			info = member.Info()
		}
		return info, "", err
	}
	folder, _ := splitPath(p)
	locator := member.Locator()
	for _, name := range []string{climb(folder, locator[vhdx.KeyRelativePath]), locator[vhdx.KeyAbsolutePath]} {
		for _, f := range listed {
			if name != "" && strings.EqualFold(f, name) {
				return member.Info(), f, nil
			}
		}
	}
	return info, "", fmt.Errorf("%w: the parent of %s is none of the files that the Hyper-V writer lists on volumes of the host", ErrPath, p)
}

// climb resolves a relative path, which may start with `.\` and `..\`, from a folder. "" stays "".
func climb(folder, relative string) string {
	for {
		switch {
		case relative == "":
			return ""
		case strings.HasPrefix(relative, `.\`):
			relative = relative[2:]
		case strings.HasPrefix(relative, `..\`):
			folder, _ = splitPath(folder)
			relative = relative[3:]
		default:
			return joinPath(folder, relative)
		}
	}
}

// others are the listed files that are not a disk's own. Where the VM has checkpoints of its user, the files of the disks are among them: the tree of
// checkpoints is made of them.
func (s *Shadow) others(ctx context.Context, listed, used []string) ([]ConfigFile, error) {
	tree := len(userCheckpoints(s.vm)) > 0
	var out []ConfigFile
	for _, p := range listed {
		if !tree && slices.ContainsFunc(used, func(u string) bool { return strings.EqualFold(u, p) }) {
			continue
		}
		if !tree && s.foreign(p) {
			continue
		}
		info, err := s.host.files.Stat(ctx, s.snapshot.Path(p))
		if err != nil {
			return nil, err
		}
		_, name := splitPath(p)
		out = append(out, ConfigFile{Name: name, Path: s.snapshot.Path(p), Source: p, Size: info.Size()})
	}
	return out, nil
}

// foreign tells a disk that the image leaves out, such as one in the old format.
func (s *Shadow) foreign(p string) bool {
	return slices.ContainsFunc(s.vm.Disks, func(d Disk) bool { return d.Kind != DiskVHDX && strings.EqualFold(d.Path, p) })
}
