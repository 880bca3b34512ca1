# Every target sets up what it needs: a virtual environment in .venv, remade only when the dependencies change.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
KILLS ?= 30
.PHONY: help setup demo test test-long test-learning soak lint format bench docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Install the package and the developers' tools into .venv

# uv where there is one (seconds), venv + pip otherwise (minutes); both hold to the tested versions.
$(STAMP): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
		{ [ -x $(BIN)/python ] || uv venv --python '>=3.11' $(VENV); } && \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
		$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=/path/to/python3.11" % v[:2])' && \
		{ [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); } && \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $(STAMP)

demo: setup  ## Pretrain SimCLR on the embedded data and judge it (minutes on two cores, no download)
	$(BIN)/python -m ssl_lightning

test: setup  ## Run all tests but the next two kinds (no network, no GPU)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-long: setup  ## Run those with many processes: launchers, ranks that fail, kills, damaged files (minutes)
	$(BIN)/python -m pytest -n auto --dist loadfile -m long

test-learning: setup  ## Run those: each method learns, and collapses without its safeguard (minutes)
	$(BIN)/python -m pytest -n auto --dist worksteal -m learning tests/learning

soak: setup  ## Stop runs of every family KILLS=30 times at random, compare their ends (some 20 minutes)
	$(BIN)/python -m tests.soak --kills $(KILLS)

lint: setup  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## Print all benchmarks as ratios (under 10 minutes)
	$(BIN)/python -m benchmarks

docs: setup  ## Build the documentation into site/ (open site/index.html; no server is needed)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## Remove the environment and what tools leave behind; runs/ stays
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
