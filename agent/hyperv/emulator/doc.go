// Package emulator is a Hyper-V host over a folder: the classes and calls that the agent uses, backed by real VHDX files. It makes no
// difference to the agent's logic whether it talks to this host or to Windows.
//
// # The folder
//
// The folder is the host's D:\VMs. A sub folder with a vm.yaml in it is a VM; its disks are .vhdx files, made with qemu-img for instance. Other
// Windows paths X:\... lie in .volumes/X. People may add, change and remove all of this at any time; the host looks every second, and at every
// query. What it knows besides lies in .hyperv folders: one of the host, one of each VM.
//
// vm.yaml is the VM's definition, for people and for the host alike: what is changed through WMI, the state of the VM included, is written to it, and
// what people write takes effect. A VM whose vm.yaml or disks are wrong is shown in its critical state with the reason in StatusDescriptions,
// and disturbs no other VM.
//
// # Guests
//
// A running VM serves each disk over NBD at <disk file>.nbd in its folder, so any NBD client is a guest: qemu-io, nbdcopy, a QEMU
// guest. A flush, or a write with FUA, is durable when it is answered; every other write survives the emulator's process.
//
// # Checkpoints
//
// A checkpoint puts a differencing .avhdx on every disk at one moment. It has happened when the VM's record was renamed into its place. Removing a
// checkpoint, or converting it into a reference point, merges the .avhdx in the background while the guest writes on. Both survive a kill of the
// process at any moment. Checkpoints are a tree once one is applied that others follow; one that several follow cannot be removed alone here, as nothing is
// merged into several files.
//
// Change tracking notes every write, in units of 64 KiB, before it reaches the disk. Each checkpoint seals an epoch; an id of a reference point
// is the moment of such a seal. An id that cannot be resolved with certainty is lost: when someone else wrote the disk file, when a
// tracking file is missing, when the disk was replaced or resized.
//
// # Planned VMs
//
// Importing a configuration file makes a planned VM, which lies below the host's private folder until it is realized or destroyed. Its checkpoints are missing
// until their own files are imported; a copy with a new id has new ones for them, too. The files are this
// emulator's own, with a checksum: what a checkpoint wrote can be imported, anything else is refused.
//
// # Locks
//
// vm.op is held by what changes a VM as a whole, disk.mu by the guest and by who changes a chain of files, Host.mu for moments by everything
// that reads or changes what the host knows. They are taken in this order.
package emulator
