# Every target does its own set-up: `make demo` and `make test` work on a fresh machine with Python 3.11 or 3.12.
# On a machine without a GPU, the CPU wheels of torch are much smaller to download:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= $(firstword $(shell command -v python3.11) $(shell command -v python3.12) python3)
VENV ?= .venv
PIP_FLAGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := envs_registry paravt_env agents train tests benchmarks
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types install clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/paravt demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/codespell $(SOURCES) docs *.md pyproject.toml

types: $(STAMP)
	$(BIN)/mypy

install: $(STAMP)

# torch goes first: whichever build (CPU or CUDA) the machine's index offers is then kept by everything after it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), "Python 3.11 or 3.12 is needed: make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt setuptools
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt torch
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --no-build-isolation -e '.[train,sb3,dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
