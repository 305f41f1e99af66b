# Every target does its own set-up. TORCH overrides what is installed for torch, for instance
# TORCH="torch==2.13.0 --index-url URL-OF-THE-CPU-WHEELS" where plain torch brings CUDA along.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH ?= $(shell if nvidia-smi >/dev/null 2>&1; then echo torch; else echo torch==2.13.0; fi)
ARGS ?=

.PHONY: setup serve chat test test-slow check bench losslessness

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing $(TORCH)"
	@$(BIN)/python -m pip install -q $(TORCH)
	@echo "installing bita-serve and its tools"
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $(STAMP)

serve: setup
	$(BIN)/bita serve $(ARGS)

chat: setup
	$(BIN)/bita chat $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(ARGS)

check: setup
	$(BIN)/ruff check adapters engine server models tests benchmarks examples
	$(BIN)/ruff format --check adapters engine server models tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks.speculation $(ARGS)

losslessness: setup
	$(BIN)/python -m benchmarks.losslessness $(ARGS)
