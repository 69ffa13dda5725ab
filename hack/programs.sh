#!/usr/bin/env bash
# Usage: programs.sh FOLDER
#
# Prints a folder with the programs that the module hack/FOLDER names as its tools, compiled once for this user.
set -euo pipefail
cd "$(dirname "$0")/$1"

pins=(go.mod)
[[ ! -f package-lock.json ]] || pins+=(package-lock.json)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hyperkeep/$1/$(cat "${pins[@]}" | sha256sum | cut -c1-16)
mkdir -p "$cache"
exec 9>"$cache/.lock" && flock 9 # a second caller waits here and then finds everything done
rm -rf "$cache"/.work.*          # of a run that was killed
work=$(mktemp -d "$cache/.work.XXXXXX") && trap 'rm -rf "$work"' EXIT
for package in $(go list -f '{{.ImportPath}}' tool); do
  name=${package##*/}
  [[ ! -x $cache/$name ]] || continue
  ../progress.sh "compiling $name" go build -v -trimpath -ldflags "-s -w" -o "$work/$name" "$package"
  mv "$work/$name" "$cache/"
done
echo "$cache"
