# Two commands: `make repro` runs the pipeline, `make test` the checks. Both install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: repro test install clean-venv

repro: .venv/installed-run
	@test -d .git || { echo "error: not a git repository; DVC needs one: git clone the project instead of copying it"; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@$(BIN)/python -m pipeline.cli results

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -q
