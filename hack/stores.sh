#!/usr/bin/env bash
# Prints a folder with the object stores that the tests talk to, for HYPERKEEP_STORES: versitygw (S3),
# fake-gcs-server (Google Cloud Storage) and, where npm is installed, azurite (Azure Blob). They are
# compiled and fetched once for this user, from the modules and packages pinned in hack/stores.
set -euo pipefail
cd "$(dirname "$0")"

cache=$(./programs.sh stores)
exec 9>"$cache/.lock" && flock 9
if [[ ! -d $cache/azurite ]] && command -v npm >/dev/null; then
  echo "Fetching azurite, once for this user, into $cache" >&2
  work=$(mktemp -d "$cache/.work.XXXXXX") && trap 'rm -rf "$work"' EXIT
  mkdir "$work/azurite" && cp stores/{package.json,package-lock.json,.npmrc} "$work/azurite/"
  npm ci --prefix "$work/azurite" --no-progress >&2
  mv "$work/azurite" "$cache/"
fi
echo "$cache"
