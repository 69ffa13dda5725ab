#!/usr/bin/env bash
# Fails if code that only compiles for some platform lies where the tests on Linux could not cover for
# it: build tags belong into agent/hyperv, which has the seam, and into the agent's service wiring.
set -euo pipefail
cd "$(dirname "$0")/.."

files() { git ls-files --cached --others --exclude-standard '*.go'; }

tagged=$(files | xargs grep -l '^//go:build' -- | grep -v '/zz_generated\.' || true)
suffixed=$(files | grep -E '_(windows|linux|darwin|unix|amd64|arm64)(_test)?\.go$' || true)
misplaced=$(printf '%s\n%s\n' "$tagged" "$suffixed" | sort -u |
  grep -vE '^$|^agent/hyperv/|^agent/service/|^cmd/agent/service_' || true)
if [[ -n $misplaced ]]; then
  printf 'Code for one platform only, outside agent/hyperv, agent/service and cmd/agent/service_*.go:\n%s\n' "$misplaced" >&2
  exit 1
fi
