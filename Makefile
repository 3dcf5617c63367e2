# make demo: track two objects through a real clip; make test: everything CI runs; both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test check bench clean

install: $(VENV)/.installed

# torch first and by itself, at the exact version: on some machines a local CPU wheel serves it, and no other requirement may pull another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Rotoscope needs Python 3.11 or later; use make PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,demo]"
	touch $@

demo: install
	$(BIN)/python scripts/demo/run.py

test: install
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

check: test

bench: install
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
