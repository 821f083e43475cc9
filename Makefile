# make help lists the targets. Assumed: Go, a C compiler (for the race detector and the oneDNN
# engine) and git. All else comes from the module proxy on first use, and oneDNN from Debian's
# packages where they and the right to install them are there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GO ?= go
PYTHON ?= python3

# Programs of the developer's, at the versions that made what is committed.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2

# Packages whose goroutines talk to each other: their tests run under the race detector, and only
# there. All others run without it.
RACE_PACKAGES := ./worker/... ./coordinator/... ./allreduce/... ./cmd/internal/tlsconf
# Of these, what one goroutine computes in each test runs without.
NO_RACE_PACKAGES := ./coordinator/job ./coordinator/lab/report
# And what is worth both: the simulation plays 1,000 seeds without the race detector, 50 with it.
BOTH_PACKAGES := ./worker/internal/simulation

race_packages = $$($(GO) list $(RACE_PACKAGES) | grep -vxF "$$($(GO) list $(NO_RACE_PACKAGES))")
unit_packages = $$($(GO) list ./... | grep -vxF "$(race_packages)") $(BOTH_PACKAGES)
# Packages whose tests are built from other files with TAGS.
tagged_packages = $$($(GO) list -tags '$(TAGS)' -test -f '{{.ImportPath}} {{.Deps}}' ./model/... | \
  sed -nE 's,^([^ ]+)\.test .*/model/engine/onednn[] ].*,\1,p')

# The commit goes into --version where git can read it; a tree that it refuses must still build.
BUILDVCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)

# Whether programs can be built with oneDNN: cgo, its headers and the library are there.
have_onednn = [ "$$($(GO) env CGO_ENABLED)" = 1 ] && \
  printf '%s\n' '\#include <dnnl.h>' 'int main(void) { return dnnl_version()->major < 2; }' | \
  $$($(GO) env CC) -x c - -ldnnl -o /dev/null 2>/dev/null

# Build tags. onednn is the fast engine for CPUs; make TAGS= builds without it.
TAGS ?= $(shell $(have_onednn) && echo onednn)

DEMO_OUT ?= runs/demo
DEMO_FLAGS ?= --task cb --prompt-length 20 --steps 60 --eval-every 20 --max-target-length 8
PARITY_FLAGS ?=
FUZZTIME ?= 5s
BENCH ?= .
BENCHTIME ?= 1s
CHAOS ?= 5m
# CHAOS_FLAGS=-chaos.calm times single events only; -chaos.events=50 goes on until each kind has
# happened 50 times; -chaos.net cuts and slows links too, as root on Linux; -chaos.heartbeat=5s is
# the programs' default.
CHAOS_FLAGS ?=

.PHONY: help
help: ## List the targets.
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | \
	  while IFS=$$'\t' read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

.PHONY: onednn
onednn: ## Install oneDNN's package where it is missing and may be installed (TAGS= does without).
ifeq ($(origin TAGS),file)
	@if ! { $(have_onednn); }; then \
	  if [ "$$($(GO) env CGO_ENABLED)" = 1 ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "onednn: installing libdnnl-dev"; \
	    { apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends libdnnl-dev; \
	    } >/dev/null || true; \
	  fi; \
	  { $(have_onednn); } || \
	    echo "onednn: found no oneDNN with headers (Debian: libdnnl-dev) or no cgo; building without:" \
	      "CPUs compute with the portable engine, about a tenth as fast, and not in bf16" >&2; \
	fi
endif

.PHONY: build
build: onednn ## Build bin/dpt-coord, bin/dpt-worker and bin/dpt, with oneDNN where it is (TAGS: Go's build tags).
	@mkdir -p bin
	$(GO) build -tags '$(TAGS)' -trimpath -buildvcs=$(BUILDVCS) -o bin/ ./cmd/dpt-coord ./cmd/dpt-worker ./cmd/dpt

.PHONY: demo
demo: build ## Tune prompts with dpt and pt for the embedded model on 4 workers here; writes runs/demo (DEMO_FLAGS).
	@rm -rf '$(DEMO_OUT)'
	bin/dpt-coord --nodes 4 --local --out '$(DEMO_OUT)/dpt' --method dpt $(DEMO_FLAGS)
	@echo
	bin/dpt-coord --nodes 4 --local --out '$(DEMO_OUT)/pt' --method pt $(DEMO_FLAGS)

.PHONY: test
test: lint unit race ## Everything that must pass: lint and all tests, under the race detector where goroutines talk.

.PHONY: check
check: lint ## Lint and the short tests, in about a minute: for while you work.
	$(GO) test -vet=off -short ./...

.PHONY: unit
unit: onednn ## Run the tests that do not need the race detector, and those of the engine again with TAGS.
	@echo '$(GO) test: all packages but those that only run under the race detector'
	@$(GO) test -vet=off $(unit_packages)
	@if [ -n '$(TAGS)' ]; then \
	  echo '$(GO) test -tags $(TAGS): the packages that it changes'; \
	  $(GO) test -vet=off -tags '$(TAGS)' $(tagged_packages); fi

.PHONY: race
race: ## Run the tests of coordinator, worker, allreduce and TLS, under the race detector; needs a C compiler.
	@if [ "$$($(GO) env CGO_ENABLED)" != 1 ]; then \
	  echo "race: the race detector needs cgo; CGO_ENABLED is 0:" \
	    "set it to 1 and install a C compiler (gcc or clang)" >&2; exit 1; fi
	@cc="$$($(GO) env CC)"; if ! command -v $${cc%% *} >/dev/null; then \
	  echo "race: the race detector needs a C compiler; found no $$cc: install gcc, or set CC" >&2; exit 1; fi
	@echo '$(GO) test -race: the packages whose goroutines talk to each other'
	@$(GO) test -vet=off -race $(race_packages)

.PHONY: lint
lint: onednn ## gofmt, the line rule (.ci/lines), go vet and staticcheck.
	@bad="$$("$$($(GO) env GOROOT)/bin/gofmt" -l allreduce cmd coordinator dataset model worker)"; \
	if [ -n "$$bad" ]; then \
	  echo "gofmt: these files are not formatted (gofmt -w fixes them):" >&2; echo "$$bad" >&2; exit 1; fi
	@.ci/lines
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@tags='$(TAGS)'; if [ -n "$$tags" ]; then set -x; \
	  $(GO) vet -tags "$$tags" ./model/...; \
	  $(GO) run $(STATICCHECK) -tags "$$tags" ./model/...; fi

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (5s).
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u | while read -r dir; do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$dir"/*_test.go); do \
	    echo "fuzz $$dir $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime '$(FUZZTIME)' "$$dir"; \
	  done; \
	done

SIM_SEEDS ?= 1000
SIM_FROM ?= 1

.PHONY: simulate
simulate: ## Simulate clusters under faults, SIM_SEEDS (1000) seeds from SIM_FROM (1).
	@mkdir -p bin
	$(GO) run ./worker/internal/simulation/replay -o bin/simulation.test
	cd worker/internal/simulation && SIM_SEEDS=$(SIM_SEEDS) SIM_FROM=$(SIM_FROM) \
	  ../../../bin/simulation.test -test.run '^TestSimulation$$' -test.v -test.timeout 0

.PHONY: bench
bench: onednn ## Run the benchmarks that match BENCH, each for BENCHTIME.
	$(GO) test -tags '$(TAGS)' -run '^$$' -bench '$(BENCH)' -benchtime '$(BENCHTIME)' -benchmem ./...

.PHONY: chaos
chaos: ## Kill and stop real clusters' processes for CHAOS (5m; CHAOS_FLAGS), compare bits, time recovery.
	$(GO) test -count=1 -timeout 0 -run '^TestChaos$$' -v ./cmd/dpt-coord -chaos '$(CHAOS)' $(CHAOS_FLAGS)

.PHONY: parity
parity: build ## Compare with Transformers, PyTorch and PEFT; PYTHON has model/parity/requirements.txt.
	$(PYTHON) model/parity/run.py $(PARITY_FLAGS)

.PHONY: proto
proto: ## Generate the gRPC and protobuf code again; needs protoc.
	@command -v protoc >/dev/null || { \
	  echo "proto: found no protoc, want it on PATH (Debian: protobuf-compiler)" >&2; exit 1; }
	@mkdir -p bin/tools
	GOBIN='$(CURDIR)/bin/tools' $(GO) install $(PROTOC_GEN_GO)
	GOBIN='$(CURDIR)/bin/tools' $(GO) install $(PROTOC_GEN_GO_GRPC)
	PATH='$(CURDIR)/bin/tools':"$$PATH" $(GO) generate ./coordinator/...

.PHONY: clean
clean: ## Remove what was built and the demo's output.
	rm -rf bin '$(DEMO_OUT)' coverage.out
