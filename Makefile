# The environment is made on first use. PYTHON=... picks the interpreter, STUDENT=... the effect.
ENV := .venv
MADE := $(ENV)/.made
BIN := $(ENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
PORT ?= 5000
IS_RIGHT := 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	"$$name" -c $(IS_RIGHT) 2>/dev/null && { echo "$$name"; break; }; done)

.PHONY: env run test test-slow check bench browser ui clean

env: $(MADE)

# The stamp comes last: an environment whose making was cut off has none and is made again from nothing.
$(MADE): pyproject.toml constraints.txt requirements-litert.txt
	@"$(PYTHON)" -c $(IS_RIGHT) 2>/dev/null || { \
		echo "Python 3.11 or 3.12 is needed: install one, or name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if test -e $@; then rm $@; else "$(PYTHON)" -m venv --clear $(ENV); fi
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt -r requirements-litert.txt
	@touch $@

# A plain command, so that make starts it without a shell between: it ends when make is killed.
run: env
	@$(BIN)/understudy run --with-parent $(STUDENT)

test: env
	$(PYTEST) -m "not slow"

# Whole retrains: killed in every step, doubled, with MLflow down. CI runs them too.
test-slow: env
	$(PYTEST) -m slow

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: env
	$(BIN)/python -m tasks.bench

# ONNX Runtime for the benchmark's target `browser`, from npm: the versions and digests of the lock file, no scripts.
browser:
	npm ci --prefix tasks/browser --ignore-scripts --no-audit --no-fund

ui: env
	@$(BIN)/python -m tasks.ui --port $(PORT)

# Everything that `make run` made, and nothing else; the environment stays.
clean:
	rm -rf data/inputs data/students data/.work data/bench.json .dvc/tmp .dvc/cache
