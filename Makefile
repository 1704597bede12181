# make setup | demo | test | test-slow | docs | lint | clean.  Everything happens in .venv; nothing else is needed but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch's plain name pulls gigabytes of CUDA; the pinned build is the CPU's where one is at hand.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: setup demo test test-slow docs lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("sphereml needs Python 3.11 or newer: set PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-compile --constraint constraints.txt torch==2.13.0
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/sphereml demo

test: lint
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.cluster-installed
	@$(BIN)/python -m pytest -m slow

$(VENV)/.cluster-installed: $(VENV)/.installed
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[cluster,sweep]'
	@touch $@

docs: $(VENV)/.docs-installed
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/.docs-installed: $(VENV)/.installed
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[docs]'
	@touch $@

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports | tail -n 3

clean:
	rm -rf $(VENV) docs/_build docs/generated runs stores .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
