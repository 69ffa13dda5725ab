// Package image stores images of virtual machines in a repository and reads them back.
//
// A repository is a kopia repository: content-addressed chunks, compressed, encrypted and deduplicated, in a directory or a bucket. Each
// image is one kopia snapshot, complete by itself, which stock kopia can list, verify and restore. What this package adds is the tree
// beneath a disk: 64 MiB segments of 1 MiB leaves, so that an increment writes the changed leaves and the lists above them, and links
// everything else from the image before it. Where leaves change in part they are split. Its cost follows the changed bytes, not the size of the disk. docs/format.md has the format.
//
// No type of kopia appears in this package's API.
package image
