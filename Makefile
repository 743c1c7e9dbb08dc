# srbook: the book and its package. `make` lists the targets.
# Needs git, make, and Python 3.10 or newer; everything else goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
TORCH ?= $(shell sed -n 's/^torch==\([^ ;]*\).*/\1/p' constraints.txt)
export SRBOOK_BUDGET ?= quick

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book test serve clean notebooks lint lock

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

book: $(VENV)/.book ## Install what is needed, run changed chapters, build the pages into _build/html
	@echo "Building the book, budget $(SRBOOK_BUDGET). Chapters run when they, the package, or the pins changed."
	@$(BIN)/jupyter-book build . -W -n --keep-going
	@echo "The book is in _build/html/index.html; make serve shows it."

test: $(VENV)/.test ## Run the package's tests, then every notebook
	@echo "1 of 2: the tests"
	@$(BIN)/python -m pytest --durations 5
	@echo "2 of 2: the notebooks, budget $(SRBOOK_BUDGET); what passes is kept for make book"
	@$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 600 --durations 3 notebooks

serve: ## Show the built book on this machine, at port 8000 (or PORT=n)
	@test -f _build/html/index.html || { echo "no book yet: run make book"; exit 1; }
	@echo "http://127.0.0.1:$(PORT) (Ctrl-C ends)"
	@$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## Remove built pages, cached executions, and tool caches; keeps the environment
	rm -rf _build .pytest_cache .hypothesis .ruff_cache .coverage

notebooks: $(VENV)/.book ## Bring notebooks/ and book/chapters/ up to date with each other, without outputs
	@$(BIN)/python book/pair_notebooks.py

lint: $(VENV)/.test ## Check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

lock: ## Remake constraints.txt with the newest versions, at the same torch (or TORCH=x.y.z)
	@$(PYTHON) -m venv _build/lock
	@_build/lock/bin/python -m pip --disable-pip-version-check install --quiet uv
	@echo "torch==$(TORCH)" > _build/lock/pins.txt
	@# A CPU build of torch wants none of the CUDA packages that the index lists for it.
	@_build/lock/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 \
	  --no-annotate --no-header --quiet --constraints _build/lock/pins.txt > _build/lock/all.txt
	@grep -Ev '^(nvidia-|cuda-|triton|srbook)' _build/lock/all.txt > constraints.txt
	@echo "constraints.txt: $$(wc -l < constraints.txt) pins, torch $(TORCH)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; choose one with make PYTHON=python3.11"; exit 1; }
	@echo "Making an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Editable, with exact pins. A stamp is renewed when the pins or the package's needs change.
$(VENV)/.book: pyproject.toml constraints.txt | $(BIN)/python
	@$(call install,book)
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@$(call install,test)
	@touch $(VENV)/.book $@

define install
	echo "Installing srbook[$(1)] and what it needs into $(VENV) (the first time: 2 GB, a few minutes)"; \
	start=$$(date +%s); $(PIP) install --quiet --constraint constraints.txt --editable '.[$(1)]' && \
	echo "Installed in $$(($$(date +%s) - start)) s"
endef
