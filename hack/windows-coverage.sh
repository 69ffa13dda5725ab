#!/usr/bin/env bash
# Usage: windows-coverage.sh FOLDER
#
# Prints how much of the packages that only Windows has was executed by the programs that left their records in FOLDER (GOCOVERDIR).
set -euo pipefail
cd "$(dirname "$0")/.."

list() { go list ./agent/... ./cmd/agent | sort; }
# Packages that Linux does not have, and those that have files for Windows.
packages=$(GOOS=windows go list -f '{{if .GoFiles}}{{.ImportPath}} {{join .GoFiles " "}}{{end}}' ./agent/... ./cmd/agent |
  awk 'NR == FNR {linux[$1] = 1; next} !($1 in linux) || /_windows\.go/ {print $1}' <(list) - | sort | paste -sd, -)
go tool covdata percent -i="$1" -pkg="$packages"
