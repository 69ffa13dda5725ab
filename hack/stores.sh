#!/usr/bin/env bash
# Prints a folder with the object stores that the tests talk to, for HYPERKEEP_STORES: versitygw (S3),
# fake-gcs-server (Google Cloud Storage) and, where npm is installed, azurite (Azure Blob). They are
# compiled and fetched once for this user, from the modules and packages pinned in hack/stores.
set -euo pipefail
cd "$(dirname "$0")/stores"

version=$(cat go.mod package-lock.json | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hyperkeep/stores/$version
declare -A package=(
  [versitygw]=github.com/versity/versitygw/cmd/versitygw
  [fake-gcs-server]=github.com/fsouza/fake-gcs-server
)

mkdir -p "$cache"
exec 9>"$cache/.lock" && flock 9 # a second caller waits here and then finds everything done
rm -rf "$cache"/.work.*          # of a run that was killed
work=$(mktemp -d "$cache/.work.XXXXXX") && trap 'rm -rf "$work"' EXIT
for name in "${!package[@]}"; do
  [[ ! -x $cache/$name ]] || continue
  ../progress.sh "compiling $name" go build -v -trimpath -ldflags "-s -w" -o "$work/$name" "${package[$name]}"
  mv "$work/$name" "$cache/"
done
if [[ ! -d $cache/azurite ]] && command -v npm >/dev/null; then
  echo "Fetching azurite, once for this user, into $cache" >&2
  mkdir "$work/azurite" && cp package.json package-lock.json .npmrc "$work/azurite/"
  npm ci --prefix "$work/azurite" --no-progress >&2
  mv "$work/azurite" "$cache/"
fi
echo "$cache"
