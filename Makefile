# Copyright the kyozon authors.
# SPDX-License-Identifier: Apache-2.0

# A target is explained after its ##; `make` alone lists them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 20s
TESTTIME ?= 20m

# A name that is taken from the environment can be set by it: as root nothing may be skipped, unless one says so.
ifeq ($(shell id -u),0)
export KYOZON_LAB ?= require
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/kyozon: static, reproducible
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kyozon ./cmd/kyozon

.PHONY: demo
demo: build ## every crossing on this machine's loopback, then the status page; needs no root and no file
	bin/kyozon demo $(if $(CI),--once)

.PHONY: setup
setup: ## install what the tests need (as root), or say what is missing
	@build/setup.sh

.PHONY: test
test: setup lint ## all tests with the race detector; as root also the labs with real servers
	go test -race -vet=off -shuffle=on -timeout $(TESTTIME) ./...

.PHONY: check
check: test ## test, and nothing that is generated is stale in git
	$(MAKE) generate bpf
	git diff --exit-code

# What is checked is compiled as what is built is, so that a clean machine compiles it once.
lint tools: export CGO_ENABLED := 0
lint tools: export GOFLAGS := $(GOFLAGS) -trimpath

.PHONY: lint
lint: tools ## vet, staticcheck and the others of docs/decisions/007-linters.md
	@fail=; \
	for check in 'go vet' 'bin/tools/staticcheck -checks all,-ST1000,-ST1003,-ST1020,-ST1021,-ST1022' \
		'bin/tools/lint' 'bin/tools/revive -config tools/revive.toml'; do \
		echo "$$check ./..."; $$check ./... || fail=1; \
	done; \
	echo misspell; find . -type d \( -name .git -o -path ./bin \) -prune -o \( -name '*.go' ! -name '*_test.go' -o -name '*.md' \) -print0 | \
		xargs -0 bin/tools/misspell -error || fail=1; \
	test -z "$$fail"

.PHONY: tools
tools:
	@go build -C tools -o ../bin/tools/ tool ./lint

.PHONY: house
house: ## only the tests that hold the tree to CONTRIBUTING.md
	go test ./internal/house

.PHONY: soak
soak: setup ## the long tests: hundreds of kills, minutes of load
	KYOZON_SOAK=1 go test -race -count=1 -timeout 4h ./...

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME (20s)
	@build/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## the benchmarks of the packages
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-web
bench-web: setup build bin/peers/caddy ## beside HAProxy, nginx and Caddy in one lab; as root; BENCH="-quick" or other flags
	go run ./bench/web $(BENCH)

.PHONY: bench-kernel
bench-kernel: setup build ## the kernel plane beside plain routing, HAProxy, nginx and the user plane; as root; BENCH="-quick"
	go run ./bench/l4 $(BENCH)

.PHONY: bench-rtp
bench-rtp: setup build ## the relay of media beside rtpengine and plain routing; as root; BENCH="-quick"
	go run ./bench/rtp $(BENCH)

.PHONY: bench-mail
bench-mail: setup build ## messages beside HAProxy and a proxy made with go-smtp, mailboxes beside nginx; as root; BENCH="-quick"
	-go build -C tools -o ../bin/peers/gosmtp ./gosmtp
	go run ./bench/mail $(BENCH)

.PHONY: bench-sip
bench-sip: setup build ## calls and registrations beside Kamailio and a proxy made with sipgo; as root; BENCH="-quick"
	-go build -C tools -o ../bin/peers/sipgo ./sipgo
	go run ./bench/sip $(BENCH)

# Debian has none. Where it cannot be built, BENCH="-caddy ''" does without it.
bin/peers/caddy:
	-GOBIN=$(CURDIR)/bin/peers CGO_ENABLED=0 go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9

.PHONY: lab
lab: setup build ## bring up the mission's set-ups with real servers and try every crossing; as root
	@for f in examples/*-lab.yaml; do bin/kyozon lab run $$f || exit 1; done

.PHONY: generate
generate: ## rewrite what is generated: docs/config.md, docs/rfc.md, docs/dependencies.txt, two scorecards
	go generate ./...
	go test ./internal/house -run 'TestRFC|TestDependencies' -update
	go test ./kernel -run TestScorecard -update
	go test ./protocol/phone/sip -run TestTortureTable -update

.PHONY: bpf
bpf: ## compile kernel/bpf again; the objects are in git, so that `go build` needs no clang
	@command -v clang-14 >/dev/null && command -v llvm-strip-14 >/dev/null || build/setup.sh
	kernel/bpf/generate.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
