# Two commands do everything on a fresh machine (Python 3.11+, make):
#   make run     install, and solve the example
#   make test    install, and pass the tests
# Others: slow, guest, lowest, docs, lint, bench, clean.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

LOWEST ?= .venv-lowest
GUESTS := $(abspath $(VENV))/guests
TENPY  := examples/engine-tenpy
GUEST_TESTS = PYTHONPATH=$(GUESTS) $(BIN)/python -m pytest --rootdir $(TENPY) -c $(TENPY)/pyproject.toml $(TENPY)/tests

.PHONY: run test slow guest lowest lint docs bench clean

run: $(VENV)/installed
	$(BIN)/orchestra run examples/bilayer.yaml --backend block2

# two files at a time: most tests wait for one process that they started
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(VENV)/installed-dev $(GUESTS)/installed
	$(BIN)/python -m pytest --slow
	$(GUEST_TESTS)

# what examples/ brings, installed apart, so that other tests do not see it; its short tests
guest: $(GUESTS)/installed
	$(GUEST_TESTS) -m "not slow"

# the fast tests with the lowest versions that pyproject.toml declares, and today's of what those
# need themselves; SELECT='-m lowest' takes some minutes less
lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile $(SELECT)

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -c 'import re; \
	  found = re.findall(r"\"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", open("pyproject.toml").read()); \
	  print(*map("==".join, found), sep="\n")' >$(LOWEST)/versions
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/versions --editable '.[block2,plot,test]'
	@touch $@

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# into build/site; a warning is an error. The variable silences an advertisement of the theme
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/installed-dev
	$(BIN)/pip install --quiet physics-tenpy
	$(BIN)/python benchmarks/run_overhead.py
	$(BIN)/python benchmarks/against_tenpy.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[block2,plot]'
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/installed

$(GUESTS)/installed: $(VENV)/installed-dev $(wildcard examples/engine-tenpy/*.toml examples/*/*.py examples/*/*/*.py)
	$(BIN)/python -m pip install --quiet 'physics-tenpy>=1.1,<2'
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(GUESTS) ./$(TENPY) ./examples/geometry-three-chains
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) runs
