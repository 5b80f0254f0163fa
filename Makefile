# Every target stands on `setup`: a private uv, a virtual environment from the hashed lock, bytecode compiled once.
# Paths are relative on purpose: the folder's own path may hold spaces.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
# Inside the folder unless you share a cache of your own: nothing is left elsewhere.
export UV_CACHE_DIR ?= .cache/uv
export PIP_DISABLE_PIP_VERSION_CHECK := 1
UV := .tools/bin/uv
UV_VERSION := 0.13.9
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: help setup demo test lint format lock clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

$(UV):
	@echo "==> private uv in .tools"
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --no-cache-dir "uv==$(UV_VERSION)"

$(STAMP): requirements.lock setup.py | $(UV)
	@echo "==> environment in $(VENV): about 9 GB with CUDA libraries, one to five minutes"
	test -x $(VENV)/bin/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --compile-bytecode --editable .
	@touch $(STAMP)

setup: $(STAMP) ## Install everything into .venv (once)

demo: setup ## Run the breast_cancer example with both trainers and compare them
	$(VENV)/bin/switchyard demo

test: setup lint ## Lint, type-check and run every test
	$(VENV)/bin/python -m pytest

lint: setup ## Ruff, mypy (strict) and the import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup ## Rewrite the code in the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: | $(UV) ## Recompile requirements.lock from setup.py and requirements.overrides.txt
	$(UV) pip compile --quiet setup.py --extra dev --override requirements.overrides.txt \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_36 --output-file requirements.lock

clean: ## Remove what make installed
	rm -rf $(VENV) .tools .cache
