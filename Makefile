# Needs only make and Python 3.11-3.13; everything else is installed into .venv.
PYTHON ?= python3
UV     ?= uv

VENV  := .venv
LOCK  := requirements.lock
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
# Not below _build, where nbmake refuses to look for notebooks.
STAGE := _executed
HTML  := _build/html
# The page on reproducibility reads how long the others took, so it comes last.
LAST      := $(wildcard book/reproducibility.ipynb)
NOTEBOOKS := $(filter-out $(LAST),$(sort $(wildcard book/*.ipynb))) $(LAST)

# Tests run on the CPU, and so does everything in CI; `make book` at home uses the
# accelerator that is there. A JAX_PLATFORMS of your own wins.
ifdef CI
export JAX_PLATFORMS ?= cpu
endif
test unit pages coverage mutate: export JAX_PLATFORMS ?= cpu
# Large arrays come and go at every step of a training; by default glibc gives their pages
# back each time, and a fifth of the time goes into getting them again.
export MALLOC_TRIM_THRESHOLD_ ?= 2147483647
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TOP_PAD_ ?= 268435456
# Whole files side by side, since tests of one file share what it prepares.
SIDE := -n auto --maxprocesses=4 --dist=loadfile

heading = @printf '\n=== %s ===\n' "$(1)"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env book test lint types unit pages coverage mutate matrix audit format \
  lock clean

help:  ## Show this list
	@echo 'Usage: make TARGET [PYTHON=python3.12]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## Create .venv from requirements.lock and install the package into it

# Tested by its outcome: a first attempt that failed leaves a folder but no pip.
$(BIN)/pip:
	$(call heading,Environment: $(VENV))
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo 'No $(PYTHON) here. Name a Python 3.11, 3.12 or 3.13: make $(MAKECMDGOALS) PYTHON=...'; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit( \
	  "$(PYTHON) is Python %d.%d. Name a Python 3.11, 3.12 or 3.13: make $(MAKECMDGOALS) PYTHON=..." % v)'
	'$(PYTHON)' -m venv $(VENV)

$(STAMP): $(LOCK) pyproject.toml | $(BIN)/pip
	$(call heading,Packages: $(LOCK))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

# Every notebook is executed exactly once, in a copy, and the pages are built from
# those executed copies. Always from scratch: a cache of notebook outputs does not
# notice that the package changed. nbmake runs each notebook in its own folder, so
# it finds the style file and the data beside it. The options that only suit the unit
# tests (addopts, filterwarnings) are switched off.
book: $(STAMP)  ## Execute the notebooks and build the book into _build/html
	$(call heading,Notebooks)
	@rm -rf $(STAGE) _build
	@cp -R book $(STAGE) && cp _config.yml _toc.yml $(STAGE)/
	@find $(STAGE) -name .ipynb_checkpoints -prune -exec rm -rf {} +
	$(BIN)/python -m pytest --nbmake --overwrite --nbmake-timeout=600 --nbmake-kernel=python3 \
	  -o addopts= -o filterwarnings= -p no:cacheprovider --durations=0 \
	  $(NOTEBOOKS:book/%=$(STAGE)/%)
	$(call heading,Book)
	$(BIN)/jupyter-book build $(STAGE) --path-output . -W -n --keep-going -q
	@printf '\nThe book is built. Open\n  %s\n' '$(CURDIR)/$(HTML)/index.html'

test: lint types unit book pages  ## Style, types, unit tests, notebooks, book, and its pages

lint: $(STAMP)  ## Check style of code and notebooks
	$(call heading,Style)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## Check types of package and benchmarks
	$(call heading,Types)
	$(BIN)/mypy

# A few tests take less time than the workers would to start.
unit: $(STAMP)  ## Run unit tests and doctests, or some: make unit TESTS=tests/test_box.py
	$(call heading,Unit tests and doctests)
	$(BIN)/python -m pytest $(or $(TESTS),$(SIDE))

# Opens the pages that `make book` has built in headless Chromium, without a network.
pages: $(STAMP)  ## Test the built book in a browser (needs Chromium)
	$(call heading,Pages in a browser)
	@test -f $(HTML)/index.html || { echo 'No book here: run make book first.'; exit 1; }
	$(BIN)/python -m pytest -m pages tests/book

coverage: $(STAMP)  ## Unit tests again, and which lines and branches they reach
	$(call heading,Coverage)
	$(BIN)/python -m pytest $(SIDE) --cov

# Installs what it needs beside the locked packages; hours on two cores.
mutate: $(STAMP)  ## Change the code in a copy, line by line, and see whether tests notice
	$(call heading,Mutations)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check cosmic-ray
	$(BIN)/python tools/mutate.py $(MODULES)

matrix:  ## Tests on every Python, with newest and with lowest packages (needs uv)
	UV='$(UV)' bash .ci/matrix

audit: $(STAMP)  ## Look for known weaknesses in the locked packages (needs a network)
	$(call heading,Audit)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --disable-pip --no-deps -r $(LOCK)

format: $(STAMP)  ## Format code and notebooks, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins that still fit are kept; `make lock LOCK_FLAGS=--upgrade` takes the newest.
lock:  ## Regenerate requirements.lock (needs uv: pip install uv)
	$(UV) pip compile --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --no-annotate \
	  --extra book --extra test $(LOCK_FLAGS) pyproject.toml -o requirements.lock

clean:  ## Remove what was built (keeps .venv)
	rm -rf _build $(STAGE) dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
