#!/usr/bin/env bash
# Usage: progress.sh LABEL COMMAND...
#
# Runs a `go build -v` command and shows on standard error how long it has been at it and how many
# packages it has compiled: one line that is rewritten on a terminal, else a line every 15 seconds.
# Shows what the command printed if it fails.
set -euo pipefail

label=$1
shift
log=$(mktemp)
"$@" >"$log" 2>&1 &
command=$!
trap 'kill "$command" 2>/dev/null || true; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

report() {
  # The go command also says what it downloads; only package paths count.
  local compiled
  compiled=$(grep -cvE '^(go: |#)' "$log" || true)
  printf '%s: %dm%02ds, %d packages compiled' "$label" $((SECONDS / 60)) $((SECONDS % 60)) "$compiled"
}

if [[ -t 2 ]]; then every=1 start=$'\r\e[K' end=''; else every=15 start='' end=$'\n'; fi
next=$every
while kill -0 "$command" 2>/dev/null; do
  if ((SECONDS >= next)); then
    printf '%s%s%s' "$start" "$(report)" "$end" >&2
    next=$((SECONDS + every))
  fi
  kill -0 "$PPID" 2>/dev/null || exit 143 # nobody waits for it any more
  sleep 0.2
done
if ! wait "$command"; then
  printf '%s%s: it went wrong after %ds:\n' "$start" "$label" "$SECONDS" >&2
  tail -n 20 "$log" >&2
  exit 1
fi
((SECONDS < every)) || printf '%s%s, done\n' "$start" "$(report)" >&2
