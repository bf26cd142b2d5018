FUZZTIME ?= 30s
COUNT ?= 1
SAMPLE ?= 250
WITH = ./stream,./hedge,./registrytest,./selectors,./internal/prooftest/model:-rapid.checks=300 -test.skip=Oracle|Histories,./benchmarks/soak,./test:-test.skip=House|Docs
MUTATE = go run ./internal/prooftest/mutate -sample $(SAMPLE)

.DEFAULT_GOAL := help

help: ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

test: ## test every module
	go test work

race: ## test every module under the race detector, in random order
	go test -race -shuffle=on -count=$(COUNT) work

tools: ## build the pinned developer tools into bin/
	cd tools && GOWORK=off GOBIN=$(CURDIR)/bin go install tool

lint: ## lint every module (needs: make tools)
	@for dir in $$(go list -m -f '{{.Dir}}'); do (cd $$dir && $(CURDIR)/bin/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

fmt: ## format every file (needs: make tools)
	git ls-files '*.go' | xargs bin/gofumpt -extra -w

bench: ## run the benchmarks
	go test -run '^$$' -bench . -count=$(COUNT) ./...

cover: ## statement coverage of the root and internal packages; fails below 92 %
	go run ./internal/prooftest/cover -least 92

mutate: ## change the library in many places, one at a time, and run its tests
	$(MUTATE) -with '$(WITH)' . $$(go list ./internal/... | grep -v prooftest)

soak: ## random faults for a minute, with every call counted
	go run ./benchmarks/soak -for 60s

fuzz: ## run each fuzz target for FUZZTIME
	go run ./internal/prooftest/fuzz -for $(FUZZTIME)

figures: ## measure the figures of docs/reliability.md again: an hour
	go run ./benchmarks/soak -for 60s -write docs/reliability.md
	go run ./internal/prooftest/cover -least 92 -write docs/reliability.md
	go run ./internal/prooftest/fuzz -for $(FUZZTIME) -write docs/reliability.md
	$(MUTATE) -with '$(WITH)' -write docs/reliability.md . $$(go list ./internal/... | grep -v prooftest)

tidy: ## tidy every module
	@for file in $$(git ls-files '*go.mod'); do (cd $$(dirname $$file) && GOWORK=off go mod tidy) || exit 1; done

standalone: ## test each module without the workspace
	@for dir in $$(go list -m -f '{{.Dir}}'); do (cd $$dir && GOWORK=off go test ./...) || exit 1; done

vuln: ## look for known vulnerabilities (needs: make tools, and the vulnerability database)
	@for dir in $$(go list -m -f '{{.Dir}}'); do (cd $$dir && $(CURDIR)/bin/govulncheck ./...) || exit 1; done

ci: ## everything that CI runs
	bash .ci/run

.PHONY: help test race tools lint fmt bench cover mutate soak fuzz figures tidy standalone vuln ci
