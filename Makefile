# make demo    set up and verify a shipped model's bits per dimension on the MNIST test images, offline
# make test    set up and run everything that continuous integration runs
# make help    the other targets

PYTHON ?= python3.11
VENV ?= .venv
WORKERS ?= 2
MODEL ?= nice-mnist

PLUGINS := $(sort $(patsubst plugins/%/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
PYPROJECTS := pyproject.toml $(PLUGINS:%=plugins/%/pyproject.toml)
EDITABLES := $(PLUGINS:%=-e ./plugins/%)
TYPED := flowzoo tools benchmarks hatch_build.py $(foreach name,$(PLUGINS),plugins/$(name)/flowzoo_$(name))

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install
STAMP := $(VENV)/.flowzoo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-test demo test check lint types tests test-cuda docs site format wheels clean

help:
	@echo "make demo     set up $(VENV) and run 'flowzoo eval $(MODEL)' (about 6 GB and a few minutes the first time)"
	@echo "make test     set up and run everything that CI runs: ruff, mypy --strict, the generated docs, pytest"
	@echo "make setup    only set up $(VENV) with flowzoo and its plugins, editable"
	@echo "make lint | types | tests    one part of 'make test'"
	@echo "make test-cuda    check on a GPU what only a GPU can show; installs nothing, needs PYTHON with torch"
	@echo "make format   let ruff fix and format the sources"
	@echo "make docs     write the tables, model cards and leaderboard anew from weights_manifest.json"
	@echo "make site     build the documentation as a site into build/site"
	@echo "make wheels   build the wheels of flowzoo and its plugins into dist/"
	@echo "make clean    remove $(VENV) and everything built"
	@echo
	@echo "PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) MODEL=$(MODEL) can be set on the command line"

demo: setup
	$(VENV)/bin/flowzoo eval $(MODEL)

test: setup-test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory tests

setup: $(STAMP)-demo
setup-test: $(STAMP)-test

lint: setup-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup-test
	$(PY) -m mypy --strict $(TYPED)

# One thread a worker: on few cores, two processes of one thread each beat one process of two.
tests: setup-test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# From a checkout with whatever Python has torch: sets nothing up, and says so where there is no GPU.
test-cuda:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(if $(wildcard $(PY)),$(PY),$(if $(shell command -v $(PYTHON)),$(PYTHON),python3)) -m tools.cuda $(CUDA_ARGS)

docs: setup-test
	$(PY) -m tools.cards
	$(PY) -m tools.leaderboard
	$(PY) -m tools.aims
	$(PY) -m tools.which_flow --keep-times

site: $(STAMP)-docs
	$(PY) -m zensical build --strict --clean
	@echo "build/site/index.html; to read it in a browser: $(PY) -m http.server --bind 127.0.0.1 -d build/site"

format: setup-test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

wheels: setup
	$(PIP) --quiet --upgrade build
	for directory in . $(PLUGINS:%=plugins/%); do \
	    $(PY) -m build --wheel --no-isolation --outdir dist "$$directory" || exit 1; \
	done

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment, in steps that are each done once -------------------------------------------------

$(STAMP)-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "make: '$(PYTHON)' is not a Python 3.11 or newer that runs here." >&2; \
	    echo "      Install Python 3.11, or name the one you have: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: '$(PYTHON)' cannot make virtual environments (on Debian and Ubuntu: install python3-venv)." >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(STAMP)-torch: $(STAMP)-venv
	@echo "Installing torch and torchvision into $(VENV): several gigabytes, once."
	$(PIP) torch torchvision
	@touch $@

$(STAMP)-demo: $(STAMP)-torch $(PYPROJECTS)
	$(PIP) --quiet 'hatchling>=1.27' 'editables>=0.5'
	$(PIP) --quiet --no-build-isolation -e . $(EDITABLES)
	@touch $@

$(STAMP)-test: $(STAMP)-demo
	$(PIP) --quiet --no-build-isolation -e '.[test,dev,plots,docs]'
	@touch $@

# The generator reads sources and imports none, so that the site needs no torch: seconds instead of gigabytes.
$(STAMP)-docs: $(STAMP)-venv pyproject.toml
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
	    | $(PIP) --quiet --requirement /dev/stdin
	@touch $@
