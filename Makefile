# make table1            fill and print Table 1 at the embedded scale (SCALE=paper for the paper's models and data;
#                        SEEDS=0,1,2 for several seeds; FLAGS="key=value …" for anything else)
# make test              run the tests
# make setup             make .venv from requirements.lock (the other targets do it too)
# make tune              search the learning rates (not part of table1; its outcome is committed)
# make lint              ruff
SCALE ?= tiny
SEEDS ?=
PYTHON ?= python3
PIP_FLAGS ?=
FLAGS ?=
PY := .venv/bin/python

seeds := $(if $(SEEDS),seeds=[$(SEEDS)])

.PHONY: help setup table1 test lint tune
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --editable .
	@touch $@

table1: setup
	$(PY) scripts/table.py table=$@ scale=$(SCALE) $(seeds) allow_code_execution=true $(FLAGS)

tune: setup
	$(PY) scripts/tune.py table=table1 scale=$(SCALE)

test: setup
	$(PY) -m pytest

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
