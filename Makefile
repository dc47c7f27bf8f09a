# `make help` lists the targets. Everything is installed into .venv from locked requirements; nothing else is changed.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
# One folder holds one run, so another seed has a folder of its own.
DEMO := .demo$(if $(filter-out 0,$(SEED)),/seed-$(SEED))
INSTALLER := requirements/install.sh requirements/uv.txt operator/pyproject.toml trainer/pyproject.toml

.PHONY: help demo check test faults cluster operator cluster-down lock clean

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
	$(BIN)/pytest -q tests/unit tests/contract

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

clean: ## remove the virtual environment and the demo's workspace
	rm -rf .venv .demo

.venv/run.stamp: requirements/run.txt requirements/demo.txt $(INSTALLER)
	PYTHON=$(PYTHON) requirements/install.sh run demo
	@touch $@

.venv/test.stamp: requirements/test.txt requirements/demo.txt $(INSTALLER)
	PYTHON=$(PYTHON) requirements/install.sh test demo
	@touch .venv/run.stamp $@
