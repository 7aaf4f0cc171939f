# make run    start the cache on 127.0.0.1:5000 (UPSTREAM=https://… to cache that; else a demonstration registry;
#             STORE=s3, azure, gcs, swift or oss to try it on an emulator of that)
# make test   bring what the tests need and run them        make check   format, lint, types, layers
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 5000
UPSTREAM ?=
STORE ?=
BASE_IMAGE ?= python:3.12-slim
IMAGE ?= msrcache:dev
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help venv run check format test test-all test-deps chaos bench image clean
.DEFAULT_GOAL := help

help:  ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

venv: .venv/stamp  ## Set up .venv with everything that development needs

.venv/stamp: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -e '.[all,dev,bench]' -c constraints.txt
	@touch $@

run: venv  ## Start the cache on 127.0.0.1:$(PORT); UPSTREAM=https://msr.example.com, or a demonstration; STORE=s3
	@[ -z '$(STORE)' ] || scripts/test-deps '--for=$(STORE)'
	@exec $(BIN)/python -m tests.stage.demo --port '$(PORT)' --upstream '$(UPSTREAM)' --store '$(STORE)'

check: venv  ## Format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv  ## Rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-deps:  ## Bring the servers and clients that tests run against (as root: Debian packages too)
	scripts/test-deps

test: venv test-deps  ## Run the tests; ARGS are pytest's
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

test-all: venv  ## The slow ones as well
	scripts/test-deps --all
	$(BIN)/python -m pytest $(ARGS)

chaos: venv test-deps  ## Ten minutes of faults on three replicas under load; writes docs/reliability.md. ARGS='--seed 7'
	$(BIN)/python -m tests.chaos --write docs/reliability.md $(ARGS)

bench: venv test-deps  ## Measure the cache beside its peers; writes docs/performance.md
	$(BIN)/python -m bench $(ARGS)

image:  ## Build the container image
	docker build --build-arg BASE_IMAGE='$(BASE_IMAGE)' -t '$(IMAGE)' .

clean:  ## Remove what was built or started here: .venv, caches; ./var stays (it holds your blobs)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
