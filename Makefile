# `make help` lists what there is. Needs GNU make and a Python from 3.10 on (PYTHON=python3.12 to choose one);
# everything else goes into .venv, from the versions in requirements*.lock, as wheels: no compiler is needed.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TESTS ?= tests
JOBS ?= auto
BENCH ?= benchmarks

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary :all:
# A package in a local folder is no wheel; it is built by the setuptools that the lock brings.
SELF := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-build-isolation

RUNTIME := $(VENV)/.installed-runtime
TESTING := $(VENV)/.installed-test
DEVELOPING := $(VENV)/.installed-dev
NOTEBOOKS := $(VENV)/.installed-notebooks

.DEFAULT_GOAL := help
.PHONY: help run test bounds fuzz check lint format types layers tidy bench protos docs notebooks lock dev clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUNTIME) ## install into .venv and serve on http://127.0.0.1:8080 (ARGS='-server.http-listen-port=9090')
	$(BIN)/mimir-ray serve $(ARGS)

test: $(TESTING) ## run all tests (TESTS=tests/promql ARGS='-x -k rate'; JOBS=0 runs them in one process)
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --maxprocesses=4 --dist=loadfile $(TESTS) $(ARGS)

bounds: $(TESTING) ## run the unit tests with every index in every kernel checked
	NUMBA_BOUNDSCHECK=1 MIMIR_RAY_KERNEL_CACHE=$(abspath $(VENV))/.checked-kernels \
	  $(BIN)/python -m pytest --numprocesses=$(JOBS) --maxprocesses=4 --dist=loadfile --ignore=tests/integration tests $(ARGS)

fuzz: $(TESTING) ## fuzz all decoders, 1,000,000 inputs or 3 h (MIMIR_RAY_FUZZ_INPUTS, _SECONDS, _SEED, _TARGETS)
	$(BIN)/python -m tests.fuzz

check: lint types layers test ## everything that must hold before a change is taken

lint: $(DEVELOPING) ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(DEVELOPING) ## ruff: put the format right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(DEVELOPING) ## mypy
	$(BIN)/mypy

layers: $(DEVELOPING) ## import-linter: who may import whom
	$(BIN)/lint-imports --no-cache

tidy: $(TESTING) ## rules of the house that no linter knows
	$(BIN)/python -m pytest -q tests/test_tidy.py

protos: $(DEVELOPING) ## generate mimir_ray/wire/pb from protos/
	$(BIN)/python -m mimir_ray.wire.generate

docs: $(RUNTIME) ## generate docs/configuration.md from the declared settings
	$(BIN)/python tools/docs.py

bench: $(TESTING) ## run the benchmarks (BENCH=benchmarks/tsdb ARGS=...)
	@for file in $$(find $(BENCH) -name 'bench_*.py' | sort); do \
	  echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

notebooks: $(NOTEBOOKS) ## run every notebook from top to bottom
	$(BIN)/jupyter nbconvert --execute --to notebook --inplace $(sort $(wildcard notebooks/*.ipynb))

lock: ## resolve requirements*.lock anew (PYTHONS='python3.10 python3.11 ...')
	$(PYTHON) tools/lock.py $(or $(PYTHONS),$(PYTHON))

dev: $(DEVELOPING) ## install ruff, mypy, import-linter and protoc into .venv

clean: ## remove .venv and whatever tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find mimir_ray tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "mimir-ray needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) -r requirements.lock
	$(SELF) --prefer-binary -c requirements.lock -e .
	@touch $@

$(TESTING): $(RUNTIME) requirements-test.lock
	$(PIP) -r requirements-test.lock
	@touch $@

$(DEVELOPING): $(TESTING)
	$(SELF) --prefer-binary -c requirements.lock -c requirements-test.lock -e '.[test,dev]'
	@touch $@

$(NOTEBOOKS): $(TESTING)
	$(SELF) --prefer-binary -c requirements.lock -e '.[notebooks]'
	@touch $@
