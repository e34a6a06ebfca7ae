# `make repro` runs the pipeline, `make slides` runs it on whole slides, `make test` checks the project, `make bench` measures
# its speed. Each installs what it needs into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: repro slides test bench install

repro: .venv/.installed
	@git rev-parse --verify --quiet HEAD >/dev/null || { echo "error: DVC needs a git repository with a commit: clone the project with git"; exit 1; }
	DVC_SITE_CACHE_DIR="$(CURDIR)/.dvc/tmp/site" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@$(BIN)/pixelcam results

# In a clone of the last commit, with presets/slides.yaml as it stands here, so that params and results here stay as they are.
slides: .venv/.installed
	@test -d .slides || git clone --quiet . .slides
	@git -C .slides fetch --quiet origin HEAD && git -C .slides reset --quiet --hard FETCH_HEAD
	@cp presets/slides.yaml .slides/params.yaml
	cd .slides && DVC_SITE_CACHE_DIR="$$PWD/.dvc/tmp/site" PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$$PWD" dvc repro
	@cd .slides && $(CURDIR)/$(BIN)/pixelcam results

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

bench: .venv/.installed-dev
	$(BIN)/python -m benchmarks

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make repro PYTHON=python3.11"; exit 1; }
	@echo "installing into .venv (a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	@touch $@
