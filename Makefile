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

.PHONY: help setup demo test test-kubeflow test-serving test-tuning test-workers flink test-flink test-gpu test-tpu test-containers lint format lock image clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

$(UV):
	@echo "==> private uv in .tools"
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --no-cache-dir "uv==$(UV_VERSION)"

$(STAMP): requirements.lock setup.py | $(UV)
	@echo "==> environment in $(VENV): about 12 GB with CUDA libraries, one to five minutes"
	test -x $(VENV)/bin/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --compile-bytecode --editable .
	@touch $(STAMP)

setup: $(STAMP) ## Install everything into .venv (once)

demo: setup ## Run the breast_cancer example with both trainers and compare them
	$(VENV)/bin/switchyard demo

# Tests side by side, each of which starts processes of its own; 1: one after the other.
TESTS_AT_ONCE ?= 2
SIDE_BY_SIDE := -n $(TESTS_AT_ONCE) --dist loadgroup

test: setup lint ## Lint, type-check and run all tests but those of the next eight
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE)

test-kubeflow: setup ## Run compiled pipelines: KFP's local runner, TFX pipelines of others, submit
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) -m kubeflow

test-serving: setup ## Serve models over HTTP, swap them under load, predict files
	$(VENV)/bin/python -m pytest -m serving

test-tuning: setup ## Search hyperparameters with every trainer, crash, kill and resume the search
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) -m tuning

test-workers: setup ## Train on several workers with every trainer, kill some of them
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) -m workers

# Apache Flink and Beam's job server for it, by the ordinary Maven client. 2.62.0 and 1.19 are what the tests have run with.
FLINK := .cache/flink
BEAM_JAVA ?= 2.62.0
FLINK_VERSION ?= 1.19

FLINK_STAMP := $(FLINK)/.beam-$(BEAM_JAVA)-flink-$(FLINK_VERSION)

$(FLINK_STAMP): infra/flink/pom.xml
	@command -v mvn >/dev/null || { echo "make flink: needs Maven (mvn) and Java 11 or 17 on the PATH"; exit 2; }
	@echo "==> Beam's job server $(BEAM_JAVA) for Flink $(FLINK_VERSION) and what it needs, 150 MB, in $(FLINK)"
	@rm -rf $(FLINK).new
	@mvn --quiet --batch-mode --file infra/flink/pom.xml -Dmaven.repo.local="$(CURDIR)/.cache/maven" -Dto="$(CURDIR)/$(FLINK).new" \
	  -Dbeam.version=$(BEAM_JAVA) -Dflink.version=$(FLINK_VERSION) dependency:copy-dependencies jar:jar || { \
	  echo "make flink: Maven did not get Beam's job server $(BEAM_JAVA) for Flink $(FLINK_VERSION); why is said above."; \
	  echo "Other versions: make flink BEAM_JAVA=2.62.0 FLINK_VERSION=1.19"; exit 2; }
	@rm -rf $(FLINK) && mv $(FLINK).new $(FLINK) && touch $@

flink: $(FLINK_STAMP) ## Get Beam's Flink job server into .cache (once; needs Maven and Java)

test-flink: setup ## Beam's stages on a Flink cluster of this machine, workers killed; said where Maven is not reached
	-@$(MAKE) --no-print-directory flink
	$(VENV)/bin/python -m pytest -m flink

test-gpu: setup ## Train on NVIDIA GPUs; said where there is none
	$(VENV)/bin/python -m pytest -m gpu

TPU_VENV := .venv-tpu
TPU_STAMP := $(TPU_VENV)/.installed

$(TPU_STAMP): infra/image/requirements.tpu.lock setup.py | $(UV)
	@echo "==> PyTorch/XLA and the PyTorch that fits it in $(TPU_VENV): another 11 GB"
	test -x $(TPU_VENV)/bin/python || $(UV) venv --quiet --python $(PYTHON) $(TPU_VENV)
	$(UV) pip sync --quiet --python $(TPU_VENV)/bin/python --require-hashes --compile-bytecode infra/image/requirements.tpu.lock
	@touch $(TPU_STAMP)

test-tpu: setup $(TPU_STAMP) ## The TPU path without a TPU: PyTorch/XLA on its CPU device, in an environment of its own
	SWITCHYARD_TPU_PYTHON="$(CURDIR)/$(TPU_VENV)/bin/python" $(VENV)/bin/python -m pytest -m tpu

test-containers: setup ## Build the image and run pipelines in containers (needs podman; 12 minutes)
	$(VENV)/bin/python -m pytest -m containers tests/kubeflow/test_containers.py

lint: setup ## Ruff, mypy (strict) and the import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup ## Rewrite the code in the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

COMPILE := $(UV) pip compile --quiet --override requirements.overrides.txt --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_36

lock: | $(UV) ## Recompile all locks from setup.py and requirements.overrides.txt
	$(COMPILE) setup.py --extra dev --output-file requirements.lock
	$(COMPILE) setup.py --constraint requirements.lock --output-file infra/image/requirements.gpu.lock
	$(COMPILE) setup.py infra/image/tpu.in --output-file infra/image/requirements.tpu.lock

ACCELERATOR ?= cpu
CONTAINERS ?= $(firstword $(foreach tool,docker podman,$(shell command -v $(tool) 2>/dev/null)))
VERSION := $(shell sed -n 's/^    version="\(.*\)",/\1/p' setup.py)
IMAGE ?= switchyard:$(VERSION)$(if $(filter cpu,$(ACCELERATOR)),,-$(ACCELERATOR))

image: ## Build the container image: ACCELERATOR=cpu|gpu|tpu IMAGE=name:tag
	@test -n "$(CONTAINERS)" || { echo "make image: needs docker or podman on the PATH"; exit 2; }
	$(CONTAINERS) build $(IMAGE_FLAGS) --build-arg ACCELERATOR=$(ACCELERATOR) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) --tag $(IMAGE) .

clean: ## Remove what make installed
	rm -rf $(VENV) $(TPU_VENV) .tools .cache
