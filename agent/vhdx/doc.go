// Package vhdx reads and writes Hyper-V virtual hard disks (.vhdx and .avhdx) as described by [MS-VHDX], in pure Go and on every platform.
//
// # Parts
//
//   - [File] is one member of a chain: a fixed, dynamic or differencing file. [Open] reads it over an io.ReaderAt.
//   - [Disk] is a chain, topmost member first. It reads the bytes that the guest sees, and [Disk.Data] streams where there may be something
//     other than zeros, without reading payload.
//   - [Create] makes a dynamic, fixed or differencing file.
//   - [Writer] is read-write access to one member whose parents stay read-only. [MergeRange] moves what a child holds into its parent.
//
// # Trust
//
// A disk file may come from anybody. Every number in it is checked before use, nothing is allocated by a size that the file names, tables are
// read page by page through a bounded cache, and a wrong file is an error that wraps [ErrCorrupt] or [ErrUnsupported], never a panic. The package opens
// no path: a differencing file names its parent, but that is information ([File.Locator]); the caller decides which files form a chain and
// [NewDisk] verifies that they belong together.
//
// # Logs
//
// A file that was not closed in an orderly way carries a log of changes to its tables. Open replays it in memory, OpenWriter into the file.
// The Writer itself keeps no log. Every change is ordered so that its last step is one aligned store of eight bytes (a BAT entry, a
// metadata entry), bits of a sector bitmap, or a header with a checksum and a predecessor:
//
//   - When the process dies, everything that was acknowledged is there, and the file is valid at any point.
//   - When the machine loses power, what was acknowledged before the last [Writer.Sync] is there and the file is valid, provided that the
//     storage writes a sector of 512 bytes as a whole. A sector that was written since then may be old, new or zero. On storage that tears
//     sectors a BAT entry may be lost; a log would be needed to rule that out.
//
// # Identity, children and merging
//
// A child names the DataWriteGuid of its parent. [Writer.WriteAt], [Writer.Zero] and [Writer.Trim] therefore give the file a new DataWriteGuid before their first
// change: a parent that was written behind its children's back no longer opens under them. Merging is the exception. While a child C is merged into
// its parent P, every byte that changes in P is hidden by C, so C on P reads the same bytes at any moment, and P keeps its
// DataWriteGuid until the end. P must have no other child. An owner who may crash anywhere proceeds like this:
//
//  1. C.SetParent with P's DataWriteGuid as DataWriteID and C's own as MergedID: C now opens on P before and after step 3.
//  2. MergeRange over the whole disk in any order and any number of times, then P.Sync.
//  3. P.FinishMerge(C): P takes C's DataWriteGuid, because it has C's content. What was a child of C is from here on a child of P.
//  4. Whoever names C as its disk or parent names P (Writer.SetParent for a child), then C is deleted.
//
// A disk in use is merged the same way: before step 1, C's Writer is put on a chain that starts with P's [Writer.File] (Writer.SetParents), because another
// File over P's storage would not notice that P grows. What the guest writes during step 2 is merged again while the guest pauses, right before step 3.
package vhdx
