#!/usr/bin/env bash
# Prints a folder with Debian's cloud kernel, boot/vmlinuz-* and lib/modules, for the tests that run a
# real guest. The package is unpacked into this user's cache and never installed.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/hyperkeep/guest-kernel
if ! command -v apt-get >/dev/null; then
  echo "The guest's kernel comes from a Debian package, and there is no apt-get here." >&2
  exit 1
fi
mkdir -p "$cache"
exec 9>"$cache/.lock" && flock 9
if [[ ! -d $cache/unpacked ]]; then
  work=$(mktemp -d "$cache/.work.XXXXXX") && trap 'rm -rf "$work"' EXIT
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^  Depends: \(linux-image-.*\)/\1/p')
  if [[ -z $package ]]; then
    echo "apt does not know linux-image-cloud-amd64: run apt-get update as root." >&2
    exit 1
  fi
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2 && dpkg-deb -x ./*.deb unpacked)
  mv "$work/unpacked" "$cache/unpacked"
fi
echo "$cache/unpacked"
