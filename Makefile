# Every command here is what people and CI run alike. `make try` and `make test` need Python >= 3.11, pip and make.

PYTHON ?= python3
# pip's arguments for PyTorch. A pinned release; set TORCH to get a build for your GPU, or a smaller one for a CPU.
TORCH ?= torch==2.13.0
# Test processes. Each loads models of its own, so there are never many.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CODEGEN25 := $(BIN)/codegen25

.PHONY: try test test-all check lint format venv nano clean

## try: set up, then show a completion and an infill of a real file, offline
try: $(VENV)/.run
	@printf '\n$$ codegen25 complete\n'
	@printf '%s' "$$TRY_PROMPT" | $(CODEGEN25) complete - --max-tokens 48
	@printf '\n\n$$ codegen25 infill examples/stats.py --at 20:1\n'
	@$(CODEGEN25) infill examples/stats.py --at 20:1
	@printf '\n'

define TRY_PROMPT
def is_prime(n):
    """Return True when n is a prime number."""

endef
export TRY_PROMPT

## test: set up, then run the tests
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS)

## test-all: the tests, those marked slow too
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) -m ""

## check: everything that must hold before a change is pushed
check: lint test

## lint: ruff's rules and layout, and mypy --strict
lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

## format: lay the sources out
format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

## venv: the environment to work in
venv: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# PyTorch first: without the pin, the extra would draw in whatever build is newest.
$(VENV)/.torch: | $(BIN)/python
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/.torch
	$(PIP) --editable '.[torch]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.torch
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run
