# Two commands matter: `make up` and `make test`. Everything heavy is cached under $(CACHE), keyed by version.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/genai-platform
PYTHON  ?= python3
VENVKEY := $(shell cat requirements.txt requirements-dev.txt | cat - <($(PYTHON) --version 2>&1) | sha256sum | cut -c1-12)
VENV    := $(CACHE)/venv-$(VENVKEY)
BIN     := $(VENV)/bin
PLAY    := $(BIN)/ansible-playbook -i inventories/kind
STEPS   := $(BIN)/python tests/tools/steps.py

export PATH := $(BIN):$(CACHE)/bin:$(PATH)
# The whole of a play is read by people: colour on a terminal, none in a log.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONUNBUFFERED := 1

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# --- bootstrap -------------------------------------------------------------------------------------------------------
# A mark says that the environment is complete; one without it was interrupted, and is built anew.
# Named after what is in them, so a clone's newer files are no reason to make it anew.
$(VENV)/.done: | requirements.txt requirements-dev.txt
	@echo ">> Python environment $(VENVKEY) (about 1 min, once)"
	@$(PYTHON) -c 'import sys; sys.exit("genai.platform needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else None'
	@mkdir -p $(CACHE) && rm -rf $(VENV)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo ">> python3-venv"; apt-get -qq update && apt-get -qq install -y python3-venv; }
	@$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.done
	@ln -sfn $(VENV) .venv
	@mkdir -p .collections/ansible_collections/genai && ln -sfn ../../.. .collections/ansible_collections/genai/platform

.PHONY: collections
collections: venv ## kubernetes.core and community.okd, from Galaxy or out of the PyPI package
	@$(BIN)/ansible-playbook -i localhost, molecule/shared/collections.yml

# --- people ----------------------------------------------------------------------------------------------------------
.PHONY: up
up: collections ## a kind cluster with the platform on it, and one prediction
	@$(STEPS) --stream --step 'the cluster' 'flock $(CACHE) $(PLAY) molecule/shared/up.yml' \
		--step 'the images' 'flock $(CACHE) $(PLAY) molecule/shared/images.yml' --step 'the platform' '$(PLAY) site.yml'
	@$(PLAY) molecule/shared/predict.yml

.PHONY: down
down: venv ## removes the cluster, keeps the caches
	@$(PLAY) molecule/shared/down.yml

# --- checks without a cluster ----------------------------------------------------------------------------------------
# $(1): options of the sanity tests, `--quick` or none. pytest's own options stand in pytest.ini and app/pyproject.toml.
CHECKS = \
	--step 'sanity and unit' '$(BIN)/python tests/tools/sanity.py $(1) && $(BIN)/python -m pytest tests/unit' \
	--beside app 'cd app && $(BIN)/python -m pytest -q --numprocesses 3' \
	--step lint 'yamllint --strict . && antsibull-changelog lint && $(BIN)/python tests/tools/lint.py --nocolor' \
	--beside render '$(BIN)/python -m pytest tests/render' \
	--beside types 'cd app && $(BIN)/ruff check --no-cache . && $(BIN)/mypy --cache-dir $(CACHE)/mypy src'

.PHONY: check
check: collections ## lint, quick sanity, unit, app and render tests: no cluster, about 2.5 min; V=1 shows everything
	@$(STEPS) $(call CHECKS,--quick)

.PHONY: sanity
sanity: collections ## builds and installs the collection, and runs all of ansible-test sanity on it
	@$(BIN)/python tests/tools/sanity.py

# kube-score, checkov and gator are built first: 7 min once.
MANIFESTS = $(BIN)/ansible-playbook -i localhost, molecule/shared/checkers.yml && $(BIN)/python -m pytest --timeout=600 tests/render/external.py

.PHONY: manifests
manifests: collections ## kube-score, checkov and Gatekeeper over every role and inventory: 2 min, the first time 9
	@$(MANIFESTS)

# In Debian's Chromium, which is installed first. The 10,000 hostile requests go to a server of their own.
PAGE = { command -v chromedriver || { apt-get -qq update && apt-get -qq install -y chromium chromium-driver; }; } >/dev/null && cd app && $(BIN)/python -m pytest -q --browser tests/browser
HOSTILE = cd app && $(BIN)/python -m pytest -q --hostile tests/hostile

# Fetching from S3, against moto. Its packages have a folder of their own, named after what is in it.
S3_PACKAGES := $(CACHE)/s3-$(VENVKEY)-$(shell sha256sum < app/tests/requirements-s3.txt | cut -c1-12)
S3 = { test -e $(S3_PACKAGES)/.done || { rm -rf $(S3_PACKAGES) && $(BIN)/pip install -q --disable-pip-version-check --no-warn-conflicts --target $(S3_PACKAGES) -r app/tests/requirements-s3.txt && touch $(S3_PACKAGES)/.done; }; } \
	&& cd app && PYTHONPATH=$(S3_PACKAGES) $(BIN)/python -m pytest -q tests/test_fetch_s3.py

.PHONY: s3
s3: venv ## fetching models from S3, against a stand-in of the store: 1 min
	@$(S3)

# An environment for each combination is made first: 2 min once.
VERSIONS = $(BIN)/python tests/tools/versions.py

.PHONY: versions
versions: collections ## the lowest and newest ansible-core and kubernetes.core, in a fresh clone: half a minute, the first time 3
	@$(VERSIONS)

.PHONY: page
page: venv ## the inference service's page, in a headless browser: 1 min
	@$(PAGE)

.PHONY: hostile
hostile: venv ## 10,000 hostile requests to the inference service: 2 min
	@$(HOSTILE)

# --- everything ------------------------------------------------------------------------------------------------------
.PHONY: test
test: collections ## all that is checked, a real kind cluster included: about 45 min, the first time more
	@$(STEPS) --figures build/figures.json $(call CHECKS,) --beside manifests '$(MANIFESTS)' --step page '$(PAGE)' --beside hostile '$(HOSTILE)' --beside s3 '$(S3)' --beside versions '$(VERSIONS)' --step molecule 'flock $(CACHE) molecule test --no-command-borders' \
		--step openshift 'flock $(CACHE) molecule test --scenario-name openshift --no-command-borders'

.PHONY: soak-ways
soak-ways: collections ## every way to run site.yml, on the cluster of `make up`: 12 min
	@GENAI_WAYS=all flock $(CACHE) $(BIN)/python -m pytest -v --timeout=900 tests/integration/test_19_ways.py

# Not a test: it asserts nothing about times. Needs the cluster of `make up` to itself.
RUNS ?= 5
.PHONY: bench
bench: collections ## measures the engine against its peers on the cluster of `make up`: RUNS=5, about 30 min
	@flock $(CACHE) $(PLAY) molecule/shared/bench.yml
	@$(BIN)/python tests/benchmarks/bench.py --runs $(RUNS) $(ARGS)

# As `bench`, against the engine of an earlier commit: BEFORE=<commit>.
.PHONY: bench-pairs
bench-pairs: collections ## measures the engine of this checkout against that of BEFORE=<commit>, by turns: RUNS=5, about 5 min
	@$(BIN)/python tests/benchmarks/pairs.py --before $(BEFORE) --runs $(RUNS) $(ARGS)

# As `bench`, of gpu_nodes on 1,000 and 5,000 nodes that kwok plays.
.PHONY: bench-fleet
bench-fleet: collections ## measures gpu_nodes against its peers on the cluster of `make up`: RUNS=5, about 20 min
	@flock $(CACHE) $(PLAY) molecule/shared/kwok.yml
	@$(BIN)/python tests/benchmarks/fleet.py --runs $(RUNS) $(ARGS)

# As `bench`, of right and wrong: cases that others got wrong. ARGS="--only 01,08 --tools ours".
.PHONY: cases
cases: collections ## tries our engine, Helm and kubernetes.core on the same situations on the cluster of `make up`, to docs/cases.md: about 12 min
	@flock $(CACHE) $(PLAY) molecule/shared/cases.yml
	@$(BIN)/python tests/benchmarks/cases/run.py --write $(ARGS)

# Beside LOAD busy loops: whatever a write of the ledger meets must not depend on who gets a core.
TIMES ?= 20
LOAD ?= 2
.PHONY: soak-ledger
soak-ledger: collections ## every way a write of the ledger can fail, again and again, on the cluster of `make up`: TIMES=20, about 20 min
	@trap 'kill $$(jobs -p) || true' EXIT; for n in $$(seq $(LOAD)); do while :; do :; done & done; for n in $$(seq $(TIMES)); do echo ">> $$n of $(TIMES)"; \
		$(BIN)/python -m pytest -vp no:cacheprovider --timeout=900 tests/integration/test_5_faults.py -k write_of_the_ledger; done

# Stops the control plane of the cluster of `make up` for a while in every round: needs the cluster to itself.
ROUNDS ?= 30
.PHONY: soak-hostile
soak-hostile: collections ## releases and rollbacks in a hostile cluster, that of `make up`: ROUNDS=30, about 45 min
	@HOSTILE_ROUNDS=$(ROUNDS) flock $(CACHE) $(BIN)/python -m pytest -vp no:cacheprovider tests/integration/test_21_hostile.py

# As `bench`, of the inference service. Needs no cluster, but the machine to itself; torch and the peers come from PyPI once.
.PHONY: bench-app
bench-app: venv ## measures the inference service against the bare model and its peers: RUNS=5, about 50 min
	@$(BIN)/python tests/benchmarks/app/bench_app.py --runs $(RUNS) $(ARGS)
	@$(BIN)/python tests/benchmarks/app/overload.py

# As `bench-pairs`, of the inference service. Needs the machine to itself.
.PHONY: bench-app-pairs
bench-app-pairs: venv ## measures the inference service of this checkout against that of BEFORE=<commit>, by turns: RUNS=5, about 15 min
	@$(BIN)/python tests/benchmarks/app/app_pairs.py --before $(BEFORE) --runs $(RUNS) $(ARGS)
