MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
# Every step keeps all cores busy by itself.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
# Without -trimpath, which the images are built with: it would share nothing with the tests' build.
BUILD := go build -ldflags "-X main.version=$(VERSION)"
TEST := go test -race -shuffle=on
# DEMO_EXIT=1 ends the demo after its last step; otherwise it stays up to be looked at.
DEMO_EXIT ?=

# What CI must show, and so what a race detector on two cores has time for.
UNIT_TIMEOUT := 20m
E2E_TIMEOUT := 40m

# Expanded where it is used: the first use may take minutes.
CONTROLPLANE = $$(hack/controlplane.sh --with-controller-manager)
LINTER = $$(go -C hack/lint tool -n golangci-lint-kube-api-linter)
CHART_CRDS := charts/hyperkeep/files/crds
CHART_RBAC := charts/hyperkeep/files/rbac
SCHEMA := agent/hyperv/emulator/internal/schema
GENERATED := api config/crd config/rbac $(CHART_CRDS) $(CHART_RBAC) $(SCHEMA)

##@ General

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: deps
deps: ## Install what the build and the tests need, but for Go (Debian, as root).
	@hack/deps.sh

.PHONY: require-go
require-go:
	@hack/require-go.sh

.PHONY: demo
demo: require-go deps ## Show Hyperkeep at work on this machine, with emulated Hyper-V hosts.
	assets="$$(hack/controlplane.sh)" # an assignment of its own: its failure ends the recipe
	KUBEBUILDER_ASSETS="$$assets" DEMO_EXIT="$(DEMO_EXIT)" go run ./hack/demo

.PHONY: clean
clean: ## Remove what was built here; the user's cache of the control plane stays.
	rm -rf bin .cache .demo

##@ Build

.PHONY: build
build: require-go ## Compile the programs for this machine into bin/.
	$(BUILD) -o bin/ ./cmd/...

.PHONY: build-windows
build-windows: require-go ## Compile the agent for Windows into bin/.
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(BUILD) -o bin/ ./cmd/agent

.PHONY: generate
generate: bin/controller-gen ## Generate the API's DeepCopy methods.
	bin/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: schema
schema: require-go ## Generate the WMI classes of the emulated host from those of microsoft/wmi.
	go run ./hack/schema $(SCHEMA)/classes.txt $(SCHEMA)/schema.txt

.PHONY: manifests
manifests: bin/controller-gen ## Generate the CRDs, for config/ and for the chart, and the manager's RBAC.
	bin/controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	bin/controller-gen rbac:roleName=hyperkeep-manager paths=./controllers/... output:rbac:dir=config/rbac
	mkdir -p $(CHART_CRDS)
	rm -f $(CHART_CRDS)/*.yaml
	cp config/crd/bases/*.yaml $(CHART_CRDS)/
	mkdir -p $(CHART_RBAC)
	cp config/rbac/{role,service_roles,agent_role,credentials_role,enroll_roles,enroll_fence,user_roles}.yaml $(CHART_RBAC)/

##@ Check

.PHONY: fmt
fmt: require-go ## Format the Go code.
	gofmt -w $$(git ls-files '*.go')

.PHONY: lint
lint: require-go ## Check the Go code, for Linux and for Windows.
	hack/check-layout.sh
	$(LINTER) run
	GOOS=windows $(LINTER) run ./agent/... ./cmd/...

.PHONY: api-lint
api-lint: require-go ## Check the API against the Kubernetes conventions.
	$(LINTER) run -c hack/lint/api.yml ./api/...

.PHONY: vet
vet: require-go ## Compile everything, tests too, for Linux and for Windows.
	go vet ./...
	GOOS=windows go vet $$(go list ./... | grep -vE '/test/(service|bench$$)') # which start programs with Linux's own calls

.PHONY: verify
verify: require-go ## Check that formatted and generated files are up to date.
	hack/verify.sh $(GENERATED)

# Under the race detector these take many minutes, most of them in kopia and in crashes at every call: make soak does that.
SLOW_UNDER_RACE := ./agent/image ./agent/hyperv ./agent/recovery ./agent/runner

.PHONY: unit
unit: require-go ## Test the packages; those that need a control plane get one.
	assets="$(CONTROLPLANE)"
	stores="$$(hack/stores.sh)"
	export HYPERKEEP_STORES="$$stores"
	KUBEBUILDER_ASSETS="$$assets" $(TEST) -timeout $(UNIT_TIMEOUT) -p 2 \
		$$(go list ./... | grep -v '^github.com/hyperkeep/hyperkeep/test/' | grep -vxF "$$(go list $(SLOW_UNDER_RACE))")
	KUBEBUILDER_ASSETS="$$assets" go test -shuffle=on -timeout $(UNIT_TIMEOUT) -p 2 $(SLOW_UNDER_RACE)

# The tests see the real kubectl and helm first in PATH. One package at a time: each of them runs
# whole control planes and hosts, and times out if two share two cores.
.PHONY: e2e
e2e: require-go bin/helm ## Test the whole: programs, control plane, chart, crashes.
	assets="$(CONTROLPLANE)"
	export KUBEBUILDER_ASSETS="$$assets" PATH="$(CURDIR)/bin:$$assets:$$PATH"
	$(TEST) -count=1 -timeout $(E2E_TIMEOUT) -p 1 $$(go list ./test/... | grep -vE '/test/(wine|service)')

WINE_RECORDS := .cache/wine
# Of the end-to-end suite, what CI has time for with the Windows agent; WINE_E2E=. is all of it, and takes more than WINE_TIMEOUT.
WINE_E2E ?= TestTrimmedRanges|TestCanceledJob|TestShadowCopyMethod|TestLostAgent|TestRestoreInPlace
WINE_TIMEOUT ?= $(E2E_TIMEOUT)

# Without the race detector: what is tested runs under Wine. Its end shows what of the code for Windows was executed, and which of Windows' calls.
.PHONY: test-wine
test-wine: require-go ## Test the Windows agent itself under Wine: each seam, then end to end, then killed.
	assets="$(CONTROLPLANE)"
	rm -rf $(WINE_RECORDS)
	mkdir -p $(WINE_RECORDS)/{calls,coverage}
	export KUBEBUILDER_ASSETS="$$assets" PATH="$(CURDIR)/bin:$$assets:$$PATH" HYPERKEEP_RECORDS="$(CURDIR)/$(WINE_RECORDS)"
	go test -count=1 -timeout $(E2E_TIMEOUT) -p 1 ./test/wine/... ./test/service
	HYPERKEEP_AGENT=windows go test -count=1 -timeout $(WINE_TIMEOUT) -run '$(WINE_E2E)' ./test/e2e
	HYPERKEEP_AGENT=windows go test -count=1 -timeout $(WINE_TIMEOUT) -run TestAgentIsKilled ./test/crash
	hack/windows-coverage.sh $(WINE_RECORDS)/coverage
	go run ./test/wine/calls $(WINE_RECORDS)/calls

.PHONY: test
test: deps verify vet build-windows lint api-lint unit e2e test-wine ## Everything that CI runs.

# Flags of the benchmark, such as -rounds 5 or -size 4294967296.
BENCH ?=

# Takes some fifteen minutes and needs 16 GiB of memory; borg and qemu-img come from Debian.
.PHONY: bench
bench: require-go ## Measure the data path against its goals and its peers; writes docs/performance.md.
	hack/deps.sh borg:borgbackup
	peers="$$(hack/programs.sh peers)"
	go run ./test/bench -peers "$$peers" -page docs/performance.md -command "make bench BENCH='$(BENCH)'" $(BENCH)

.PHONY: soak
soak: require-go bin/helm ## Test what takes hours: every crash point, images under the race detector, many random histories.
	assets="$(CONTROLPLANE)"
	export KUBEBUILDER_ASSETS="$$assets" PATH="$(CURDIR)/bin:$$assets:$$PATH" HYPERKEEP_SOAK=1
	$(TEST) -count=1 -timeout 4h -p 1 ./test/crash
	$(TEST) -count=1 -timeout 4h -rapid.checks=1000 ./agent/image ./agent/vhdx
	$(TEST) -count=1 -timeout 4h ./agent/hyperv ./agent/recovery ./agent/runner
	$(MAKE) test-wine WINE_E2E=. WINE_TIMEOUT=4h
	go test -count=200 -timeout 4h -run 'TestWMI$$|TestVirtualDisks|TestVSSContract' ./test/wine

##@ Tools

bin/controller-gen: hack/tools/go.mod | require-go
	go build -C hack/tools -o "$(CURDIR)/$@" sigs.k8s.io/controller-tools/cmd/controller-gen

bin/helm: hack/tools/go.mod | require-go
	hack/progress.sh "compiling helm" \
		go build -C hack/tools -v -o "$(CURDIR)/$@" helm.sh/helm/v3/cmd/helm
