#!/usr/bin/env bash
# Installs the programs that the build and the tests use, but for Go itself, with Debian's apt-get.
# Elsewhere, or without the right to install, it says what is missing and fails.
#
# Usage: deps.sh [COMMAND:PACKAGE...]   more of them than build and tests need
set -euo pipefail

# A command (or a file), and the Debian package that it comes from.
needed=(
  "gcc gcc" # the race detector links C
  "/usr/include/stdlib.h libc6-dev"
  "git git"
  "flock util-linux"
  "setpriv util-linux"                 # ties the tests' servers to the life of the tests
  "qemu-img qemu-utils"                # a second implementation of VHDX
  "vhdiinfo libvhdi-utils"             # a third one, which reads differencing disks
  "fusermount fuse3"                   # through which libvhdi shows their content
  "nbdinfo libnbd-bin"                 # a second implementation of NBD
  "qemu-system-x86_64 qemu-system-x86" # a real guest that writes while it is backed up
  "busybox busybox-static"             # that guest's programs
  "debugfs e2fsprogs"                  # file systems in the tests' images
  "mkntfs ntfs-3g"
  "wine wine" # runs the Windows agent
  "/usr/lib/wine/wine64 wine64"
  "x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-win32" # Wine's stand-ins for Hyper-V's libraries
)
for more in "$@"; do needed+=("${more/:/ }"); done

PATH=$PATH:/usr/sbin:/sbin
missing=()
for entry in "${needed[@]}"; do
  read -r command package <<<"$entry"
  command -v "$command" >/dev/null || [[ -e $command ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
  echo "Not installed: ${missing[*]} (the names are those of Debian's packages)." >&2
  echo "On Debian or Ubuntu: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  echo "Tests that need one of them are skipped while it is missing." >&2
  exit 1
fi
echo "Installing ${missing[*]}" >&2
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
