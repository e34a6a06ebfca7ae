# `make repro` runs the pipeline, `make slides` runs it on whole slides, `make test` checks the project, `make bench` measures
# its speed; `make mutants`, `make soak` and `make processors` take an hour (docs/reliability.md). On x86-64 Linux `make repro`
# gives the committed bytes; PIXELCAM_PORTABLE=0 make repro computes in the machine's own way, faster or on its GPU. Each
# installs what it needs into .venv: by version (constraints.txt), or by the hash of every file (make install LOCK=cpu or
# LOCK=index, see docs/security.md). `make lock` writes the hashes to locks/, `make sbom` the parts list to sbom/.
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .venv/tools
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
HASHED := $(PIP) --require-hashes --no-build-isolation --requirement
HASHES := $(TOOLS)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11.1 --generate-hashes --no-annotate --custom-compile-command 'make lock'
PINNED = $(shell sed -n 's/^\([^\#=]*\)==.*/\1/p' constraints.txt)

ifdef LOCK
INSTALL := $(HASHED) locks/build.txt && $(HASHED) locks/packages.txt --requirement locks/$(LOCK).txt && $(PIP) --no-deps --no-build-isolation
else
INSTALL := $(PIP) --constraint constraints.txt
endif

# Portable bytes need AVX2 (pipeline/runtime/portable.py).
PORTABLE_HERE = $(and $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(shell grep -m 1 -o avx2 /proc/cpuinfo))
PIXELCAM_PORTABLE ?= $(if $(PORTABLE_HERE),1,0)
CHANGED_0 := computed in the way of this machine; PIXELCAM_PORTABLE=1 make repro gives the committed bytes on x86-64 Linux
CHANGED_1 := code, params, data or packages are not those of the commit

.PHONY: repro slides test bench mutants soak processors install lock sbom

repro: .venv/.installed
	@git rev-parse --verify --quiet HEAD >/dev/null || { echo "error: DVC needs a git repository with a commit: clone the project with git"; exit 1; }
	PIXELCAM_PORTABLE=$(PIXELCAM_PORTABLE) DVC_SITE_CACHE_DIR="$(CURDIR)/.dvc/tmp/site" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@$(BIN)/pixelcam results
	@git diff --quiet HEAD -- dvc.lock || echo "dvc.lock changed: $(CHANGED_$(PIXELCAM_PORTABLE))"

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
	$(BIN)/mypy --num-workers 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

bench: .venv/.installed-dev
	$(BIN)/python -m benchmarks

mutants: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m checks.mutants

soak: .venv/.installed-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m checks.soak

processors: .venv/.installed-dev
	$(BIN)/python -m checks.processors

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make repro PYTHON=python3.11"; exit 1; }
	@echo "installing into .venv (a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(INSTALL) --editable '.[dev]'
	@touch $@

# torch and what it needs differ from system to system: locks/index.txt is the index's, locks/cpu.txt is kept by hand.
lock: $(TOOLS)/.installed
	@echo 'setuptools>=77' | $(HASHES) - --output-file locks/build.txt
	@$(HASHES) --no-deps --no-emit-package torch constraints.txt --output-file locks/packages.txt
	@$(HASHES) --constraint locks/build.txt $(addprefix --no-emit-package ,setuptools $(filter-out torch,$(PINNED))) constraints.txt --output-file locks/index.txt

sbom: .venv/.installed $(TOOLS)/.installed
	@mkdir -p sbom
	$(TOOLS)/bin/cyclonedx-py environment .venv --pyproject pyproject.toml --output-reproducible --validate --output-file sbom/python.json
	npm sbom --sbom-format cyclonedx --package-lock-only > sbom/npm.json

$(TOOLS)/.installed: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 'cyclonedx-bom[json-validation]==7.5.0'
	@touch $@
