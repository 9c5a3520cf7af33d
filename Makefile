# make run: set up, then a gateway with a demo game server. make test: set up, then all checks.

PYTHON ?= python3
VENV ?= .venv
PYDOCTOR := --quiet --quiet --warnings-as-errors --docformat=plaintext --project-name=fastway
BIN := $(VENV)/bin

.PHONY: run play test lint check docs bench clean

$(BIN)/.runs: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[snet]'
	@touch $@

$(BIN)/.tests: $(BIN)/.runs
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@

run: $(BIN)/.runs
	@mkdir -p run
	@exec $(BIN)/fastway demo --run-dir run

play: $(BIN)/.runs
	@exec $(BIN)/fastway play

lint: $(BIN)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(BIN)/.tests
	$(BIN)/pytest

test: lint docs check

docs: $(BIN)/.tests
	$(BIN)/pydoctor $(PYDOCTOR) --html-output=build/api fastway

# make bench BENCH='--peer "other-gateway {client} {server}"' measures another beside it.
bench: $(BIN)/.runs
	$(BIN)/python -m bench.gateways $(BENCH)
	$(BIN)/python -m bench.endpoint
	$(BIN)/python -m bench.snet

clean:
	rm -rf $(VENV) run build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
