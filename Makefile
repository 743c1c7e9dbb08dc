# srbook: the book and its package. `make` lists the targets.
# Needs git, make, and Python 3.10 or newer; everything else goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
TORCH ?= $(shell sed -n 's/^torch==\([^ ;]*\).*/\1/p' constraints.txt)
export SRBOOK_BUDGET ?= quick
# Processes at once: chapters, or tests and notebooks, each with one thread.
CORES = import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
JOBS ?= $(shell $(PYTHON) -c '$(CORES)')
# What to test: files and folders, and options of pytest.
TESTS ?= tests notebooks

# Another arithmetic on the same processor: other instructions, so sums and products round otherwise.
ARITHMETICS := avx2 plain
ARITHMETIC_avx2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE
ARITHMETIC_plain := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE
# Another vendor's processor, emulated by qemu: its libraries choose other code there. About 25 times slower.
PROCESSORS := EPYC-Rome Skylake-Client

known = $(if $(filter-out $(2),$($(1))),$(error $(1)=$($(1)) is not known; use one of $(2), or leave it out))
$(call known,ARITHMETIC,$(ARITHMETICS))
$(call known,PROCESSOR,$(PROCESSORS))

comma := ,
SETTINGS := $(if $(ARITHMETIC),env $(ARITHMETIC_$(ARITHMETIC)))
# Each of pytest-xdist's workers is the interpreter that the environment links to, told that it is the link. What a
# test starts in a process of its own runs on the real processor.
EMULATED = qemu-x86_64 -cpu $(PROCESSOR) -0 $(abspath $(BIN)/python) $(realpath $(BIN)/python)
WORKERS = --dist worksteal $(if $(PROCESSOR),-m 'not wheel and not forks' --tx '$(JOBS)*popen//python=$(EMULATED)',-n $(JOBS))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book emulator test serve lab wheel clean notebooks lint lock

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo "and, after make test or make book:"
	@printf "  %-16s %s\n" "TESTS=..." "test only this: tests/package/test_x.py, notebooks/01-x.ipynb, or options of pytest" \
	  "JOBS=n" "so many processes at once, one thread each (here: $(JOBS))" \
	  "ARITHMETIC=word" "round as other processors do: $(ARITHMETICS)" \
	  "PROCESSOR=name" "make test under that processor, emulated by qemu: $(PROCESSORS)"

book: $(VENV)/.book ## Install what is needed, run changed chapters, build the pages into _build/html
	@echo "Building the book, budget $(SRBOOK_BUDGET). Chapters run when they, what they use of srbook, or the pins changed."
	@$(SETTINGS) $(BIN)/python book/execute_chapters.py --jobs $(JOBS)
	@$(SETTINGS) $(BIN)/jupyter-book build . -W -n --keep-going
	@echo "The book is in _build/html/index.html; make serve shows it."

test: $(if $(PROCESSOR),emulator) $(VENV)/.test ## Run the package's tests, then every notebook
ifneq ($(filter-out notebooks%,$(TESTS)),)
	@echo "The tests$(if $(ARITHMETIC)$(PROCESSOR),$(comma) $(ARITHMETIC) $(PROCESSOR))"
	@$(SETTINGS) $(BIN)/python -m pytest $(WORKERS) --durations 5 $(filter-out notebooks%,$(TESTS))
endif
ifneq ($(if $(PROCESSOR),,$(filter notebooks%,$(TESTS))),)
	@echo "The notebooks, budget $(SRBOOK_BUDGET); what passes is kept for make book"
	@$(SETTINGS) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 3 \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout 600 $(filter notebooks%,$(TESTS))
endif

emulator:
	@command -v qemu-x86_64 > /dev/null || \
	  { echo "PROCESSOR=$(PROCESSOR) needs the program qemu-x86_64 (Debian: apt-get install qemu-user)"; exit 1; }
	@echo "Under $(PROCESSOR) a test takes about 25 times as long; qemu's warnings about TCG mean nothing here."

serve: ## Show the built book on this machine, at port 8000 (or PORT=n)
	@test -f _build/html/index.html || { echo "no book yet: run make book"; exit 1; }
	@echo "http://127.0.0.1:$(PORT) (Ctrl-C ends)"
	@$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## Remove built pages, cached executions, and tool caches; keeps the environment
	rm -rf _build .pytest_cache .hypothesis .ruff_cache .coverage

notebooks: $(VENV)/.book ## Bring notebooks/ and book/chapters/ up to date with each other, without outputs
	@$(BIN)/python book/pair_notebooks.py

lab: $(VENV)/.lab ## Open the chapters in JupyterLab, with theorems and equations rendered
	@$(BIN)/jupyter lab --ServerApp.root_dir=. notebooks/01-the-problem.ipynb

wheel: $(VENV)/.test ## Build the wheel, install it with [study] alone, and run notebooks from it
	@$(BIN)/python -m pytest -m wheel tests/project/test_wheel.py

lint: $(VENV)/.test ## Check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

lock: ## Remake constraints.txt with the newest versions, at the same torch (or TORCH=x.y.z)
	@$(PYTHON) -m venv _build/lock
	@_build/lock/bin/python -m pip --disable-pip-version-check install --quiet uv
	@echo "torch==$(TORCH)" > _build/lock/pins.txt
	@# Not of iqa, which brings another sixty packages. A CPU build of torch wants none of the CUDA packages that the index
	@# lists for it.
	@_build/lock/bin/uv pip compile pyproject.toml --extra test --extra lab --universal --python-version 3.10 \
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

$(VENV)/.lab: pyproject.toml constraints.txt | $(BIN)/python
	@$(call install,lab)
	@touch $@

# pip compiles every module of 2 GB, on one core; left to their first import, few are. Where Python may not do that,
# all are compiled here, on all cores, and those that are no Python of this version are passed over.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),$(BIN)/python -m compileall -qq -j $(JOBS) $(VENV)/lib || true,true)

define install
	echo "Installing srbook[$(1)] and what it needs into $(VENV) (the first time: 2 GB, a few minutes)"; \
	start=$$(date +%s); $(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[$(1)]' && \
	{ $(COMPILE); } && \
	echo "Installed in $$(($$(date +%s) - start)) s"
endef
