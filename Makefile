# Every target depends on `setup`: a private uv, a virtual environment from the hashed lock, bytecode compiled once.
# Paths are relative on purpose: the folder's own path may hold spaces.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Empty: infra/environment.sh chooses an interpreter, and the lock that fits it and this system's glibc.
PYTHON ?=
CHOOSE := infra/environment.sh "$(PYTHON)"
NEW_LOCK := requirements.glibc239.lock
# Inside the folder by default, so that no files are left elsewhere; a shared cache can be set.
export UV_CACHE_DIR ?= .cache/uv
export PIP_DISABLE_PIP_VERSION_CHECK := 1
UV := .tools/bin/uv
UV_VERSION := 0.13.9
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-unit test-all test-suites durations screenshots reference docs mutants landed flink tpu lint format lock lock-macos audit sbom sbom-image image image-serving clean

help: ## Show this help
	@grep -hE '^[a-z%-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18
	@echo "Suites: $(SUITES_OF_ALL)"

$(UV):
	@echo "==> private uv in .tools"
	@read -r lock python < <($(CHOOSE) 2>/dev/null || $(CHOOSE)) && "$$python" -m venv .tools
	.tools/bin/python -m pip install --quiet --no-cache-dir "uv==$(UV_VERSION)"

# An environment of another Python version is made anew, also if a PYTHON is given later.
MINOR := -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null
ifneq ($(PYTHON),)
ifneq ($(shell "$(PYTHON)" $(MINOR)),$(shell $(VENV)/bin/python $(MINOR)))
.PHONY: $(STAMP)
endif
endif

$(STAMP): requirements.lock $(NEW_LOCK) setup.py infra/environment.sh | $(UV)
	@echo "==> environment in $(VENV): 12 GB with CUDA libraries, one to six minutes"
	@read -r lock python < <($(CHOOSE)) && set -ex \
	  && { test "$$($(VENV)/bin/python $(MINOR))" = "$$("$$python" $(MINOR))" \
	    || $(UV) venv --quiet --clear --python "$$(command -v "$$python")" $(VENV); } \
	  && $(UV) pip sync --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode "$$lock" \
	  && rm -rf $(VENV)/share/switchyard && mkdir -p $(VENV)/share/switchyard && cp "$$lock" $(VENV)/share/switchyard
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --compile-bytecode --editable .
	@touch $(STAMP)

setup: $(STAMP) ## Install everything into .venv (once)

demo: setup ## Run the breast_cancer example with both trainers and compare them
	$(VENV)/bin/switchyard demo

# Tests in parallel, each of which starts its own processes; 1: sequentially.
TESTS_AT_ONCE ?= 2
SIDE_BY_SIDE := -n $(TESTS_AT_ONCE) --dist loadgroup --no-loadscope-reorder
# Tests to exclude: `.ci/run` excludes those that it has run before.
BUT ?=
PYTEST := $(VENV)/bin/python -m pytest

test-unit: setup ## Run the tests that import no framework: a minute or two
	$(PYTEST) $(SIDE_BY_SIDE) tests/unit

test: setup lint ## Run lint, types, import contracts, unit tests and one pass of every capability: ten minutes
	$(PYTEST) $(SIDE_BY_SIDE) -m "(unit or core)$(if $(BUT), and not ($(BUT)))"

test-all: setup lint flink-if-possible tpu-if-possible ## Run all suites; what cannot run here is skipped with the reason
	$(PYTEST) $(SIDE_BY_SIDE) --record $(subst $(space),$(comma),$(SUITES_OF_ALL))

# A suite is a folder of tests: make test-serving; several in one session: make test-suites SUITES="serving kubeflow".
space := $(subst ,, )
comma := ,
SUITES_OF_ALL := $(patsubst tests/%/,%,$(sort $(dir $(wildcard tests/*/test_*.py))))
SUITES ?= $(SUITES_OF_ALL)

test-suites: setup $(if $(filter flink,$(SUITES)),flink-if-possible) $(if $(filter tpu,$(SUITES)),tpu-if-possible)
	$(PYTEST) $(SIDE_BY_SIDE) --record $(subst $(space),$(comma),$(strip $(SUITES))) \
	  -m "($(subst $(space), or ,$(strip $(SUITES))))$(if $(BUT), and not ($(BUT)))"

test-%: ## Run one suite, a folder of tests (the list is below)
	@test -d tests/$* || { echo "make $@: there is no tests/$*. Suites: $(SUITES_OF_ALL)"; exit 2; }
	@$(MAKE) --no-print-directory test-suites SUITES=$*

# Any KFP: make test-cluster HOST=URL, or HOST=stand-in. Without HOST: the suite tests/cluster against stand-ins.
# Only as an argument: some shells export HOST.
ifeq ($(origin HOST),command line)
test-cluster: setup ## Test the KFP at HOST: [NAMESPACE= TOKEN_FILE= IMAGE= MLFLOW=URI SET='KEY=VALUE ...' DEPLOY='--OPTION ...']
	$(PYTEST) -p no:xdist --timeout=7200 -m "" -rN tests/cluster/test_any_cluster.py --cluster-host="$(HOST)" $(if $(NAMESPACE),--cluster-namespace="$(NAMESPACE)") \
	  $(if $(TOKEN_FILE),--cluster-token-file="$(TOKEN_FILE)") $(if $(IMAGE),--cluster-image="$(IMAGE)") \
	  $(if $(MLFLOW),--cluster-mlflow="$(MLFLOW)") --cluster-set='$(SET)' --cluster-deploy='$(DEPLOY)'
endif

durations: setup flink-if-possible tpu-if-possible ## Measure every test and fixture into tests/durations.json and docs/testing.md
	$(PYTEST) $(SIDE_BY_SIDE) --durations-file tests/durations.json; code=$$?; $(VENV)/bin/python -m tests.durations merge; exit $$code

screenshots: setup ## Make the pictures of README.md and docs/ again: the demo, its report, its runs in MLflow
	$(VENV)/bin/python docs/make_pictures.py

reference: setup ## Generate docs/reference from the code: config keys, commands, API
	PYTHONPATH=. $(VENV)/bin/python docs/make_reference.py

# Zensical, in an environment of its own.
DOCS := .tools/docs
DOCS_STAMP := $(DOCS)/.installed

$(DOCS_STAMP): infra/docs/requirements.lock | $(UV)
	@echo "==> Zensical in $(DOCS)"
	test -x $(DOCS)/bin/python || $(UV) venv --quiet --python .tools/bin/python $(DOCS)
	$(UV) pip sync --quiet --python $(DOCS)/bin/python --require-hashes infra/docs/requirements.lock
	@touch $@

docs: $(DOCS_STAMP) ## Build the site of docs/ into .cache/docs/site and check its links; it works offline
	@$(DOCS)/bin/python docs/make_site.py

mutants: setup ## Mutate twenty lines, one at a time, and list which mutants `make test` catches
	$(VENV)/bin/python -m tests.mutants

landed: setup ## Start a change: record in tests/last_passed.json that the current commit has landed
	$(VENV)/bin/python -m tests.ci landed

# Apache Flink and Beam's job server, by the Maven client. The tests have run with 2.62.0 and 1.19.
FLINK := .cache/flink
BEAM_JAVA ?= 2.62.0
FLINK_VERSION ?= 1.19

FLINK_STAMP := $(FLINK)/.beam-$(BEAM_JAVA)-flink-$(FLINK_VERSION)

$(FLINK_STAMP): infra/flink/pom.xml
	@command -v mvn >/dev/null || { echo "make flink: needs Maven (mvn) and Java 11 or 17 on the PATH"; exit 2; }
	@echo "==> Beam's job server $(BEAM_JAVA) for Flink $(FLINK_VERSION) and its dependencies, 150 MB, in $(FLINK)"
	@rm -rf $(FLINK).new
	@mvn --quiet --batch-mode --file infra/flink/pom.xml -Dmaven.repo.local="$(CURDIR)/.cache/maven" -Dto="$(CURDIR)/$(FLINK).new" \
	  -Dbeam.version=$(BEAM_JAVA) -Dflink.version=$(FLINK_VERSION) dependency:copy-dependencies jar:jar || { \
	  echo "make flink: Maven could not download Beam's job server $(BEAM_JAVA) for Flink $(FLINK_VERSION); see the error above."; \
	  echo "Other versions: make flink BEAM_JAVA=2.62.0 FLINK_VERSION=1.19"; exit 2; }
	@rm -rf $(FLINK) && mv $(FLINK).new $(FLINK) && touch $@

flink: $(FLINK_STAMP) ## Download Beam's Flink job server into .cache (once; needs Maven and Java)

.PHONY: flink-if-possible tpu-if-possible
flink-if-possible: ; -@$(MAKE) --no-print-directory flink

TPU_VENV := .venv-tpu
TPU_STAMP := $(TPU_VENV)/.installed

$(TPU_STAMP): infra/image/requirements.tpu.lock setup.py | $(UV)
	@echo "==> PyTorch/XLA and its version of PyTorch in $(TPU_VENV): another 11 GB"
	test -x $(TPU_VENV)/bin/python || $(UV) venv --quiet --no-python-downloads --python \
	  "$$(.tools/bin/python -c 'import sys; print(sys.executable if sys.version_info[:2] == (3, 11) else "3.11")')" $(TPU_VENV)
	$(UV) pip sync --quiet --python $(TPU_VENV)/bin/python --require-hashes --compile-bytecode infra/image/requirements.tpu.lock
	@touch $(TPU_STAMP)

tpu: setup $(TPU_STAMP) ## Install PyTorch/XLA for the TPU path's tests (once)

tpu-if-possible: ; -@$(MAKE) --no-print-directory tpu

lint: setup ## Check with ruff, mypy (strict) and the import contracts
	@$(MAKE) --no-print-directory --jobs=2 --output-sync lint-types lint-style

.PHONY: lint-types lint-style
lint-types: ; $(VENV)/bin/mypy
lint-style:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

format: setup ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# pip-audit and CycloneDX's tool, in an environment apart from the one that they check.
AUDIT := .tools/audit
AUDIT_STAMP := $(AUDIT)/.installed
LOCKS := requirements.lock $(NEW_LOCK) $(wildcard infra/image/*.lock) infra/audit/requirements.lock infra/docs/requirements.lock

$(AUDIT_STAMP): infra/audit/requirements.lock | $(UV)
	@echo "==> pip-audit and CycloneDX's tool in $(AUDIT)"
	test -x $(AUDIT)/bin/python || $(UV) venv --quiet --python .tools/bin/python $(AUDIT)
	$(UV) pip sync --quiet --python $(AUDIT)/bin/python --require-hashes infra/audit/requirements.lock
	@touch $@

audit: $(AUDIT_STAMP) ## Look up known vulnerabilities of the locked packages; exit code 3: no vulnerability database is reachable
	@$(AUDIT)/bin/python infra/audit/audit.py $(AUDIT_FLAGS) $(LOCKS)

SBOM ?= .cache/sbom
CYCLONEDX := $(AUDIT)/bin/cyclonedx-py requirements --output-reproducible --of JSON

sbom: $(AUDIT_STAMP) ## Write the locked packages as CycloneDX files into .cache/sbom
	@mkdir -p "$(SBOM)"
	@for lock in $(LOCKS); do \
	  to="$(SBOM)/$$(echo $${lock%.lock} | tr / -).cdx.json"; $(CYCLONEDX) --output-file "$$to" $$lock && echo "$$to" || exit; done

sbom-image: $(AUDIT_STAMP) ## Write the packages installed in the image IMAGE (needs docker or podman)
	@test -n "$(CONTAINERS)" || { echo "make sbom-image: needs docker or podman on the PATH"; exit 2; }
	@mkdir -p "$(SBOM)"
	@to="$(SBOM)/image-$$(echo $(IMAGE) | tr /: --).cdx.json"; set -o pipefail; \
	  $(CONTAINERS) run --rm $(IMAGE) python3 -c 'from importlib.metadata import distributions as d; \
	print("\n".join(sorted({f"{x.name}=={x.version}" for x in d()})))' \
	  | $(CYCLONEDX) --output-file "$$to" - && echo "$$to"

COMPILE_BARE := $(UV) pip compile --quiet --no-emit-index-url --no-emit-find-links --no-annotate --no-header
COMPILE_ANY := $(COMPILE_BARE) --generate-hashes
COMPILE_311 := $(COMPILE_ANY) --python-version 3.11 --python-platform x86_64-manylinux_2_36
COMPILE := $(COMPILE_311) --override requirements.overrides.txt
# Without hashes, which pip would then demand of every package.
CONSTRAINTS := $(COMPILE_BARE) setup.py --extra gpu --extra huggingface --extra kubeflow --extra lightgbm --extra signing

lock: | $(UV) ## Recompile all locks from setup.py and requirements.overrides.txt
	$(COMPILE) setup.py --extra dev --output-file requirements.lock
	$(COMPILE_ANY) --universal --python-version 3.12 setup.py --extra dev --output-file $(NEW_LOCK)
	$(COMPILE_ANY) --universal --python-version 3.13 setup.py --extra gpu --extra huggingface --extra kubeflow --extra lightgbm --extra signing \
	  --constraint $(NEW_LOCK) --output-file infra/image/requirements.gpu.lock
	$(COMPILE_ANY) --universal --python-version 3.13 infra/image/serving.in --constraint $(NEW_LOCK) --output-file infra/image/requirements.serving.lock
	$(COMPILE) setup.py infra/image/tpu.in --extra huggingface --extra kubeflow --extra lightgbm --extra signing --output-file infra/image/requirements.tpu.lock
	$(CONSTRAINTS) --python-version 3.11 --python-platform x86_64-manylinux_2_36 --override requirements.overrides.txt \
	  --constraint requirements.lock --output-file components/user_code/constraints-3.11.txt
	$(CONSTRAINTS) --universal --python-version 3.12 --constraint $(NEW_LOCK) --output-file components/user_code/constraints-3.12.txt
	for tool in audit docs; do $(COMPILE_311) infra/$$tool/requirements.in --output-file infra/$$tool/requirements.lock || exit; done

lock-macos: setup ## Check that every package of the newer lock can be installed on macOS (arm64)
	$(UV) pip install --dry-run --quiet --target build/macos --python-platform aarch64-apple-darwin --python-version 3.13 \
	  --require-hashes -r $(NEW_LOCK)
	@echo "$(NEW_LOCK) resolves on macOS (arm64), Python 3.13"

ACCELERATOR ?= cpu
# libtpu, which torch_xla pins, has no wheels for Python 3.13.
BASE ?= python:3.$(if $(filter tpu,$(ACCELERATOR)),11-slim-bookworm,13-slim-trixie)
CONTAINERS ?= $(firstword $(foreach tool,docker podman,$(shell command -v $(tool) 2>/dev/null)))
VERSION := $(shell sed -n 's/^    version="\(.*\)",/\1/p' setup.py)
IMAGE ?= switchyard:$(VERSION)$(if $(filter cpu,$(ACCELERATOR)),,-$(ACCELERATOR))

# Packages of user code: a list, or those that a pipeline lists.
PIPELINE ?=
DEPENDENCIES ?= $(if $(PIPELINE),$(shell $(VENV)/bin/switchyard dependencies list "$(PIPELINE)" || echo failed))

image: ## Build the container image: ACCELERATOR=cpu|gpu|tpu IMAGE=name:tag PIPELINE=pipeline.yaml (its dependencies)
	@test -n "$(CONTAINERS)" || { echo "make image: needs docker or podman on the PATH"; exit 2; }
	@test "$(lastword $(DEPENDENCIES))" != failed
	$(CONTAINERS) build $(IMAGE_FLAGS) --build-arg BASE=$(BASE) --build-arg ACCELERATOR=$(ACCELERATOR) --build-arg DEPENDENCIES="$(DEPENDENCIES)" --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) --tag $(IMAGE) .

FRAMEWORK ?= tensorflow

image-serving: ## Build the image that serves one framework's models: FRAMEWORK=tensorflow|pytorch|lightgbm IMAGE=name:tag
	@test -n "$(CONTAINERS)" || { echo "make image-serving: needs docker or podman on the PATH"; exit 2; }
	$(CONTAINERS) build $(IMAGE_FLAGS) --file infra/image/serving.Dockerfile --build-arg BASE=$(BASE) --build-arg FRAMEWORK=$(FRAMEWORK) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	  --tag $(if $(filter file,$(origin IMAGE)),switchyard-serving:$(VERSION)-$(FRAMEWORK),$(IMAGE)) .

clean: ## Remove what make installed
	rm -rf $(VENV) $(TPU_VENV) .tools .cache
