#!/usr/bin/env bash
# Usage: verify.sh FOLDER...
#
# Fails if Go files are not formatted, go.mod is not tidy, or generating again changes the folders'
# content. What changed is left in place, to be looked at and committed.
set -euo pipefail
cd "$(dirname "$0")/.."

# A folder may not be there before it is generated.
state() { { find "$@" -type f -exec sha256sum {} + 2>/dev/null || true; } | sort -k 2; }

failed=0
unformatted=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 gofmt -l)
if [[ -n $unformatted ]]; then
  printf 'Not formatted; run make fmt:\n%s\n' "$unformatted" >&2
  failed=1
fi
if ! difference=$(go mod tidy -diff); then
  printf 'go.mod is not tidy; run go mod tidy:\n%s\n' "$(head -n 20 <<<"$difference")" >&2
  failed=1
fi
before=$(state "$@")
make --no-print-directory generate manifests schema
if ! difference=$(diff <(echo "$before") <(state "$@")); then
  printf 'Generated files were out of date; commit them as they are now:\n%s\n' "$difference" >&2
  failed=1
fi
exit "$failed"
