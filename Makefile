# Everything one runs here. `make help` lists it; the two commands of the README are `make book`
# and `make test`. Each prepares .venv by itself.

# Any Python that has wheels for every pin.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& echo $$p && break; done)
# PyPI's torch for Linux is the CUDA build, several GB with its libraries. For such a build give
# .../whl/cu128 or the like; empty: use pip's own index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# quick, full or paper: how long the chapters train.
EQREG_MODE ?= quick
PORT ?= 8000
JOBS ?= 6
# Tests at a time; each of them computes with one thread. A page that measures time runs alone, after the others.
WORKERS ?= 2
export EQREG_MODE TORCH_INDEX
# Without cached byte code every kernel spends ten seconds on compiling torch's modules.
unexport PYTHONDONTWRITEBYTECODE

$(if $(shell git --version),,$(error git is needed))
BIN := .venv/bin
# Without byte code: Python compiles a module when it is first imported, and most never are.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile
BUILT := _build/html/index.html

# The stamp of a finished set-up. Its name holds a hash of the pins and of this folder (a venv does
# not survive being moved), so an interrupted or outdated set-up is never taken for a good one.
READY := .venv/.ready-$(shell (echo "$(CURDIR)"; cat requirements.lock pyproject.toml) | git hash-object --stdin)

# The ten dearest tests of each kind are printed: a second here is a second of everybody's.
DEAREST := --durations=10 --durations-min=1
# A worker that hung and was ended is not replaced by one that would hang anew.
PARALLEL = -n $(WORKERS) --max-worker-restart 0
NBVAL = $(BIN)/python -m pytest -p tests.notebooks.pages --keep-pages _build/.jupyter_cache \
	--nbval-lax --nbval-sanitize-with tests/notebooks/sanitize.cfg
TIMED := $(shell grep -l perf_counter notebooks/*.ipynb)

# What the pages depend on besides their own text.
CODE = $(sort $(shell find eqreg $(wildcard artifacts) -type f ! -path '*/__pycache__/*'))
CODE_HASH = $(shell (echo $(EQREG_MODE) $(EQREG_DATA) $(CODE); git hash-object $(CODE) requirements.lock) | git hash-object --stdin)

.DEFAULT_GOAL := help
.NOTPARALLEL: # the order of `test` is meant
.PHONY: help setup fresh book serve test lint types unit fuzz notebooks browser pdf book2 colab-check zoo bench artifacts gpu sync lock repository npm wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## .venv with exactly the packages of requirements.lock

$(READY):
	@echo "== setup: about 1.7 GB, a few minutes =="
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@rm -f .venv/.ready-* # first, since the next line can be interrupted too
	$(PYTHON) -m venv --clear .venv
	@test -z "$(TORCH_INDEX)" || $(INSTALL) $(if $(filter %/cpu,$(TORCH_INDEX)),--no-deps) \
		--retries 1 --timeout 15 --index-url "$(TORCH_INDEX)" $$(grep -E '^torch(vision)?==' requirements.lock) \
		|| echo "torch: nothing from $(TORCH_INDEX), taking the build of pip's own index"
	$(INSTALL) --no-deps -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	$(BIN)/python book/scripts/env.py check
	@touch $@

# What pages and their tests take from npm. Without it the book has no live networks, and says so.
npm:
	@if ! command -v npm >/dev/null; then echo "npm is not here: pages get no live networks, axe-core does not run"; \
	elif cmp -s book/web/package-lock.json book/web/node_modules/.lock; then :; \
	elif npm ci --prefix book/web --no-audit --no-fund --silent; then cp book/web/package-lock.json book/web/node_modules/.lock; \
	else echo "npm could not fetch the packages: pages get no live networks, axe-core does not run"; fi

# Executed cells are cached by their own text: new code, new cache.
fresh: setup
	@test -e _build/.code-$(CODE_HASH) || { rm -rf _build; mkdir _build; touch _build/.code-$(CODE_HASH); }

book: npm fresh ## execute the notebooks, build the pages, print where they are
	@echo "== book ($(EQREG_MODE)) =="
	@# A warning is reported only when its page is read: after a failed build, read all pages again.
	@test -e _build/.finished || rm -rf _build/.doctrees
	@# Pages that left the contents would stay.
	@cmp -s _toc.yml _build/.toc || { rm -rf _build/html; cp _toc.yml _build/.toc; }
	@rm -f _build/.finished
	$(BIN)/jupyter-book build . -W -n --keep-going
	@touch _build/.finished
	@echo "The book is at $(CURDIR)/$(BUILT)"

serve: book ## show the book at http://localhost:8000 (PORT=8000)
	@echo "http://localhost:$(PORT)  (Ctrl-C stops it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

test: setup lint types unit notebooks book browser ## everything that must pass

lint: setup ## style, and what is derived from one source
	@echo "== lint =="
	$(BIN)/ruff check eqreg tests benchmarks book/scripts
	$(BIN)/ruff format --check eqreg tests benchmarks book/scripts
	$(BIN)/python book/scripts/sync.py --check

types: setup ## annotations of the library
	@echo "== types =="
	$(BIN)/mypy

unit: setup ## unit tests, property tests, examples in docstrings
	@echo "== unit =="
	OMP_NUM_THREADS=1 $(BIN)/pytest $(DEAREST) $(PARALLEL) --dist loadfile \
		eqreg tests/unit tests/property tests/fuzz tests/notebooks

fuzz: setup ## 20,000 calls with fitting and unfitting arguments (ten minutes); CALLS=2000 for fewer
	@echo "== fuzz =="
	$(BIN)/python -m tests.fuzz $(CALLS)

notebooks: fresh ## execute every notebook; its asserts are the tests, its outputs the pages of `make book`
	@echo "== notebooks =="
	OMP_NUM_THREADS=1 $(NBVAL) $(DEAREST) $(PARALLEL) --dist loadfile $(filter-out $(TIMED),$(wildcard notebooks/*.ipynb))
	$(NBVAL) $(TIMED)

browser: book ## open the built pages in Chromium
	@echo "== browser =="
	$(BIN)/pytest $(DEAREST) $(PARALLEL) --dist loadscope tests/browser

pdf: book ## the whole book as _build/eqreg.pdf, printed by Chromium
	$(BIN)/python book/scripts/pdf.py

# In folders of its own: Jupyter Book 2 would write over _build/html, and its theme comes from api.mystmd.org.
book2: setup ## the pages with Jupyter Book 2 (needs node and the network), outside of `test`
	@command -v node >/dev/null || { echo "node is not here, and Jupyter Book 2 runs on it" >&2; exit 1; }
	@test -e .venv/book2/jupyter_book || $(INSTALL) --no-deps --target .venv/book2 "jupyter-book==2.1.7"
	@rm -rf _build/book2 && mkdir -p _build/book2 && cp -r book notebooks CHANGELOG.md myst.yml _build/book2 && rm -rf _build/book2/book/web
	cd _build/book2 && PYTHONPATH=$(CURDIR)/.venv/book2 $(CURDIR)/$(BIN)/python -m jupyter_book build --html

colab-check: wheel ## all notebooks with the newest packages and our wheel; NOTEBOOKS="notebooks/06*.ipynb"
	@echo "== colab-check =="
	$(BIN)/python book/scripts/colab.py $(NOTEBOOKS)

# Without their dependencies, of which torch with CUDA would be one, into a folder of their own.
ZOO := .venv/zoo
ZOO_READY = $(ZOO)/.ready-$(shell git hash-object tests/zoo/requirements.txt)

zoo: setup ## networks and training loops of others: 0.1 GB, then some minutes; no part of `test`
	@echo "== zoo =="
	@test -e $(ZOO_READY) || { rm -rf $(ZOO) && $(INSTALL) --no-deps --target $(ZOO) -r tests/zoo/requirements.txt && touch $(ZOO_READY); }
	PYTHONPATH=$(CURDIR)/$(ZOO) OMP_NUM_THREADS=1 $(BIN)/pytest -m zoo tests/zoo

bench: setup ## time and memory, printed as ratios
	@set -e; for name in import_time cost; do echo "== $$name =="; $(BIN)/python benchmarks/$$name.py; done

artifacts: setup ## the long runs whose results artifacts/ holds (hours on one core; runs go on where they stopped)
	@set -e; for task in rain inpainting classification deraining mar; do $(BIN)/python -m eqreg run $$task --preset cpu && \
		$(BIN)/python -m eqreg compare $$task --preset cpu --keep artifacts; done
	@set -e; study() { echo "== $$* =="; $(BIN)/python -m eqreg run "$$@" && $(BIN)/python -m eqreg compare "$$@" --keep artifacts; }; \
	study rain --preset methods --vary patches=4,16,64; \
	study inpainting --preset methods --vary patches=4,16,64; \
	study rain --preset methods,patches=4,crop=32,size=192; \
	study rain --preset page; \
	study rain --preset dial --vary spread=20,60,90; \
	study rain --preset dial,spread=90,patches=32; \
	for case in spread=20 spread=60 spread=90 spread=90,patches=32; do study rain --preset dial,$$case --vary strength=10,40,160; done; \
	study classification --preset laws,law=upright,train=1000; \
	study classification --preset laws,law=turned; \
	study classification --preset laws --vary train=50,100,400; \
	study textures --preset laws; \
	study rain --preset claim --vary patches=4,16,64,256; \
	study inpainting --preset claim --vary patches=4,16,64,256; \
	study mar --preset claim --vary slices=4,8,16,32; \
	study rain --preset dose --vary spread=45,50,60,75,90; \
	for task in rain classification; do $(BIN)/python -m eqreg run $$task --preset evidence --runs artifacts/runs; done; \
	study rain --preset opponents; \
	study classification --preset opponents
	@set -e; for name in suggested scale kills $(if $(EQREG_DATA),row_costs ct_simulator rain_statistics); do echo "== $$name =="; $(BIN)/python benchmarks/$$name.py; done

gpu: setup ## what GPU.md lists as pending; MINUTES=9 stops in time, JOBS=6 share the card, call again to go on
	$(BIN)/python benchmarks/gpu.py --jobs $(JOBS) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(EQREG_DATA),--data "$(EQREG_DATA)")

sync: setup ## rewrite badges, links and versions from _config.yml and pyproject.toml
	$(BIN)/python book/scripts/sync.py
	$(BIN)/python book/scripts/env.py conda

repository: setup ## URL=https://github.com/you/eqreg: the project has this address; turns on buttons, links, pip lines
	$(BIN)/python book/scripts/sync.py --set "$(URL)"

lock: ## resolve the pins of pyproject.toml anew into requirements.lock
	$(PYTHON) book/scripts/env.py lock

wheel: setup ## dist/: wheel and sdist
	$(BIN)/python -m build --no-isolation

clean: ## remove what was built (.venv stays)
	rm -rf _build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
