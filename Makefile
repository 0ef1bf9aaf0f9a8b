# Start here: `make help`. Everything else is done by harness/devcluster/setup.sh, pytest and the harness.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format bench clean
SHELL := /bin/bash

# Where `make demo` runs: `emulated`, a Slurm cluster on this machine (root), or `local`, plain processes.
SITE ?= emulated
# Ours alone: a tool that reads SITE from the environment must not find it.
unexport SITE

SETUP := harness/devcluster/setup.sh
PYTHON_HERE := .venv/bin/python
# Root gets the emulated cluster; others the environment alone, and tests that need a cluster say so.
ROOT_ONLY := $(if $(filter 0,$(shell id -u)),--cluster --dev,)

help: ## show this list
	@echo "Start with one of these:"
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo "  SITE=local make demo    the same demo as plain processes: no root, no Slurm"

setup: ## build .venv, the Python environment, without touching the system
	@$(SETUP) --yes

demo: ## (root) emulated 4-node Slurm cluster, quickstart campaign, report; about 5 minutes
	@case '$(SITE)' in \
	    emulated) $(SETUP) --cluster --yes ;; \
	    local) $(SETUP) --yes ;; \
	    *) echo "SITE='$(SITE)', but the demo knows 'emulated' and 'local'; for a real cluster:" >&2; \
	       echo "  .venv/bin/harness run configs/campaigns/quickstart.yaml --site yours.yaml" >&2; exit 2 ;; \
	esac
	@$(PYTHON_HERE) -m harness.demo --site '$(SITE)'

test: ## every test; as root those on the emulated cluster too (REQUIRE_CLUSTER=1: or fail)
	@$(SETUP) $(if $(filter-out 0,$(REQUIRE_CLUSTER)),--cluster --dev,$(ROOT_ONLY)) --yes
	$(PYTHON_HERE) -m pytest -n 2 --dist loadfile

check: lint ## lint, types, import rules, tests without a cluster, MPI or a browser; about three minutes
	$(PYTHON_HERE) -m pytest -n 2 --dist loadfile -m "not cluster and not mpi and not browser" tests/unit tests/golden

lint: ## lint, types and import rules alone
	@$(SETUP) --yes
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(PYTHON_HERE) -m mypy
	.venv/bin/lint-imports

format: ## let ruff put the code in order
	@$(SETUP) --yes
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: ## what the harness costs, beside others (tests/bench/README.md); over an hour, judges nothing
	@$(SETUP) $(ROOT_ONLY) --yes
	$(PYTHON_HERE) -m pytest tests/bench -s
	$(PYTHON_HERE) -m tests.bench

clean: ## remove .venv, caches and build outputs; results in .harness/runs stay
	@if [ -e .harness/cluster/cookie.json ]; then \
	    echo "A cluster is in .harness/cluster; take it down first: .venv/bin/harness cluster down" >&2; exit 1; fi
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .grimp_cache .import_linter_cache
	find harness analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +
