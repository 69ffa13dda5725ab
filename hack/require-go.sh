#!/usr/bin/env bash
# Fails, and says what to do, unless the go command can build this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' go.mod)
advice="Install Go $wanted or later from https://go.dev/dl/ into /usr/local/go and put /usr/local/go/bin first in PATH."

if ! command -v go >/dev/null; then
  echo "Hyperkeep is built with Go, and there is no go command. $advice" >&2
  exit 1
fi
found=$(go env GOVERSION 2>/dev/null || true)
if [[ $(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -n 1) != "$wanted" ]]; then
  echo "Hyperkeep needs Go $wanted or later; $(command -v go) is ${found:-older}. $advice" >&2
  exit 1
fi
