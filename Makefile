# Two commands set it all up on a machine with python3, python3-venv, make and git:
#   make demo    a trained PyTorch model to int8, to C for Cortex-M4, proved on an emulated core, its profile
#   make test    the whole test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock
DIGITS := fixtures/digits
# pytest-xdist runs this many tests at a time.
WORKERS ?= auto
# Neighbours stay with one worker, so that what a file builds for its tests is built once.
TOGETHER := -n $(WORKERS) --dist worksteal

.PHONY: demo test check lint format goldens clean

demo: $(VENV)/.emulate
	$(BIN)/tinydeploy compress $(DIGITS)/digits.pt2 --data $(DIGITS)/train.npz --eval-data $(DIGITS)/test.npz \
		--max-accuracy-drop 0.01 -o demo/model
	$(BIN)/tinydeploy export-c demo/model/model.onnx --target cortex-m4 --name digits -o demo/c
	$(BIN)/tinydeploy verify demo/model/model.onnx --target cortex-m4 --inputs $(DIGITS)/test.npz
	$(BIN)/tinydeploy profile demo/model/model.onnx --target cortex-m4,nucleo-l4r5zi,raspberry-pi-pico

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(TOGETHER)

# The fast subset, for every commit.
check: lint
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow" -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Trains the fixtures again and refreshes their golden outputs; the same bytes come out.
goldens: $(VENV)/.train
	$(BIN)/python fixtures/digits/make.py

$(VENV)/.emulate: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) -e '.[emulate]'
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.emulate

$(VENV)/.train: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) -e '.[dev,train]' scikit-learn
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
