# `make demo` and `make test` do everything on a fresh machine: virtual environment, installation, run.

PYTHON ?= python3
OUT ?= demo_run
BIN := .venv/bin

# Threads that spin while they wait make a small busy machine many times slower.
export OMP_WAIT_POLICY := passive

.PHONY: help demo test test-slow lint clean

help:
	@echo "make demo       one field of nuclei, from annotated tiles to a report (about 10 minutes on 2 CPU cores)"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take minutes each"
	@echo "make lint       ruff and pyright"
	@echo "make clean      remove the virtual environment and caches"

demo: .venv/.installed-demo
	$(BIN)/jdm-demo --out $(OUT) $(ARGS)

test: .venv/.installed-test
	$(BIN)/python -m pytest $(ARGS)

test-slow: .venv/.installed-test
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -1); expected Python 3.11 or newer;" \
	    "give one with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "error: $(PYTHON) -m venv failed; expected Python with venv and pip; install them (python3-venv)" >&2; exit 2; }

# A stamp per extra: installing is repeated only when pyproject.toml is newer.
.venv/.installed-%: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@
