# Every target does its own set-up: a virtual environment in .venv, PyTorch, and this project.
#
#   PYTHON       interpreter the environment is made with (3.11 or newer)
#   TORCH        what is installed for PyTorch: the newest where there is a GPU, else 2.13.0
#   TORCH_INDEX  package index it comes from, if not pip's own: where pip's own has only the CUDA
#                build, the index of the CPU wheels saves gigabytes
#   IMAGE        name of the container image
#   ARGS         arguments of the command behind serve, chat, tune, test, bench ...
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH ?= $(shell nvidia-smi >/dev/null 2>&1 && echo torch || echo torch==2.13.0)
TORCH_INDEX ?=
ARGS ?=
IMAGE ?= bita-serve:cpu

BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.bench-installed
CLIENTS := build/clients
CLIENTS_STAMP := $(CLIENTS)/.installed
DEPLOY := build/deploy
DEPLOY_STAMP := $(DEPLOY)/.installed
RAY := build/ray
RAY_STAMP := $(RAY)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
CODE := adapters engine server models tests benchmarks deploy examples

# The sources of llama.cpp come with its Python package, whose own server has no batching.
LLAMA := build/llama-server
LLAMA_SOURCE := llama-cpp-python==0.3.36
LLAMA_FLAGS := -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
	-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF

.DEFAULT_GOAL := help
.PHONY: help setup serve chat tune test test-slow test-clients test-deploy check bench bench-serving bench-steps llama-server \
	losslessness docker

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

setup: $(STAMP) ## virtual environment with everything in it

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=..."; exit 1; }
	@test -x $(BIN)/pip || { echo "making a virtual environment in .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing $(TORCH) (this takes a while)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo "installing BiTA Serve and its tools"
	@$(PIP) -e '.[dev]'
	@touch $(STAMP)

serve: setup ## the embedded model, or your own: make serve ARGS="--model DIR"
	$(BIN)/bita serve $(ARGS)

chat: setup ## talk to a running server in the terminal
	$(BIN)/bita chat $(ARGS)

tune: setup ## an adapter: make tune ARGS="--model DIR --prompts FILE --out DIR"
	$(BIN)/bita tune $(ARGS)

test: setup ## the tests
	$(BIN)/python -m pytest $(ARGS)

test-slow: setup ## the longer suites
	$(BIN)/python -m pytest -m slow $(ARGS)

# Beside the environment, not in it: litellm wants older versions of what the server is tested with.
test-clients: setup $(CLIENTS_STAMP) ## langchain, litellm, instructor, lm-eval, openai and curl against a server
	PYTHONPATH=$(CLIENTS) $(BIN)/python -m pytest -m slow tests/clients $(ARGS)

test-deploy: setup $(DEPLOY_STAMP) $(RAY_STAMP) ## image, compose, Prometheus, routers and Ray Serve, as far as their tools are here
	PATH=$(CURDIR)/$(DEPLOY)/bin:$$PATH RAY_PACKAGES=$(CURDIR)/$(RAY) $(BIN)/python -m pytest -m deploy -rs tests/deploy $(ARGS)

check: setup ## lint, format, types, layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## speed with and without speculation, and transformers' own, in one process
	$(BIN)/python -m benchmarks.speculation $(ARGS)

bench-serving: setup $(BENCH_STAMP) ## servers side by side: make bench-serving ARGS="--sides bita plain transformers"
	$(BIN)/python -m benchmarks.serving $(ARGS)

bench-steps: setup ## what more rows cost at the shape of a 300 M model
	$(BIN)/python -m benchmarks.step_times $(ARGS)

llama-server: $(LLAMA) ## llama.cpp's server for bench-serving, in build/; needs cmake and a C++ compiler

$(BENCH_STAMP): $(STAMP)
	@$(PIP) -e '.[bench]'
	@touch $(BENCH_STAMP)

# What lm-eval runs transformers with, which would fetch a PyTorch of its own.
$(CLIENTS_STAMP): tests/clients/requirements.txt | $(STAMP)
	@$(PIP) --upgrade --target $(CLIENTS) -r tests/clients/requirements.txt
	@$(PIP) --upgrade --no-deps --target $(CLIENTS) accelerate psutil
	@touch $(CLIENTS_STAMP)

# Commands alone, each with what it needs: nothing of it is imported by the tests.
$(DEPLOY_STAMP): tests/deploy/requirements.txt | $(STAMP)
	@$(BIN)/python -m venv $(DEPLOY)
	@$(DEPLOY)/bin/pip --disable-pip-version-check install -q -r tests/deploy/requirements.txt
	@touch $(DEPLOY_STAMP)

# Beside the environment: only the processes of Ray see it.
$(RAY_STAMP): pyproject.toml | $(STAMP)
	@$(PIP) --upgrade --target $(RAY) 'ray[serve]>=2.60'
	@touch $(RAY_STAMP)

$(LLAMA): | $(STAMP)
	$(BIN)/pip download -q --no-deps --no-binary llama-cpp-python --dest build/llama.cpp $(LLAMA_SOURCE)
	tar xf build/llama.cpp/*.tar.gz --strip-components=1 -C build/llama.cpp
	cmake -S build/llama.cpp/vendor/llama.cpp -B build/llama.cpp/build $(LLAMA_FLAGS)
	cmake --build build/llama.cpp/build --target llama-server --parallel $$(nproc)
	cp build/llama.cpp/build/bin/llama-server $(LLAMA)

losslessness: setup ## what 16 bit does to greedy output
	$(BIN)/python -m benchmarks.losslessness $(ARGS)

docker: ## a container image, bita-serve:cpu
	docker build --build-arg REVISION=$$(git rev-parse HEAD) \
		$(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t $(IMAGE) $(ARGS) .
