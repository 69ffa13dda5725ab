package runner

import (
	"regexp"
	"strings"
)

// baseName is the last element of a Windows path.
func baseName(path string) string { return path[strings.LastIndexByte(path, '\\')+1:] }

// parentFolder cuts the last element off a Windows path. "" when there is none but the volume.
func parentFolder(path string) string {
	if i := strings.LastIndexByte(path, '\\'); i > len(`D:`) {
		return path[:i]
	}
	return ""
}

// extension is the ending of a Windows path's file name, with its dot.
func extension(path string) string {
	name := baseName(path)
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[i:]
	}
	return ""
}

// shortTag tells the files of one restore from those of another one.
func shortTag(tag string) string { return tag[:min(8, len(tag))] }

// restoredMark is what beside puts into names.
var restoredMark = regexp.MustCompile(`-restored-[0-9a-f]{8}$`)

// beside is the path of the file that a restore puts beside another one, where it has none yet: taken are the names, in lower case, that it has given. The mark
// of an earlier restore is replaced, or a name would grow with each until it is too long for NTFS.
func beside(path, tag, ending string, taken map[string]bool) string {
	name := baseName(path)
	stem := restoredMark.ReplaceAllString(strings.TrimSuffix(name, extension(name)), "")
	return strings.TrimSuffix(path, name) + uniqueName(stem+"-restored-"+shortTag(tag)+ending, false, taken)
}
