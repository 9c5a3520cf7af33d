# make run: set up, then a gateway with a demo game server. make test: set up, then all checks.

PYTHON ?= python3
VENV ?= .venv
PYDOCTOR := --quiet --quiet --warnings-as-errors --docformat=plaintext --project-name=fastway
BIN := $(VENV)/bin

CORE := $(CURDIR)/fastway/relay
CORE_FILES := $(filter-out $(CORE)/_%,$(wildcard $(CORE)/*.c))
CORE_TESTS := test_pool test_relay test_queues test_turns test_ends test_websocket test_tls \
	test_direct
SANITIZE := -std=c11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -Wall -Wextra -Werror -I$(CORE)
RELAY_TEST := $(CURDIR)/tests/relay

.PHONY: run play test lint check relay-check relay-fuzz docs bench clean

$(BIN)/.runs: setup.cfg setup.py pyproject.toml $(wildcard fastway/relay/*.[ch])
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
	$(BIN)/pytest -n 2 --dist loadfile

# The native core alone, under ASan and UBSan: its tests, then a few seconds of random days. Its
# system calls are the tests' (calls.h).
relay-check:
	@mkdir -p build/relay
	cd build/relay && $(CC) $(SANITIZE) -DCORE -include $(RELAY_TEST)/calls.h -c $(CORE_FILES)
	for test in $(CORE_TESTS); do \
		$(CC) $(SANITIZE) -D_GNU_SOURCE -o build/$$test $(RELAY_TEST)/$$test.c \
			$(RELAY_TEST)/bed.c $(RELAY_TEST)/sums.c build/relay/*.o && build/$$test || exit 1; \
	done
	$(CC) $(SANITIZE) -D_GNU_SOURCE -DSTANDALONE -o build/relay-fuzz $(RELAY_TEST)/fuzz.c \
		$(RELAY_TEST)/sums.c build/relay/*.o
	build/relay-fuzz 3 1795291833 plain # days that once found a link which was never read again
	build/relay-fuzz 12

# The same days found by libFuzzer, where there is clang, until it is stopped.
relay-fuzz:
	@mkdir -p build/corpus build/relay
	cd build/relay && clang $(SANITIZE) -fsanitize=fuzzer-no-link \
		-DCORE -include $(RELAY_TEST)/calls.h -c $(CORE_FILES)
	clang $(SANITIZE) -D_GNU_SOURCE -fsanitize=fuzzer -o build/relay-libfuzzer \
		$(RELAY_TEST)/fuzz.c $(RELAY_TEST)/sums.c build/relay/*.o
	build/relay-libfuzzer build/corpus

test: lint docs check $(if $(shell command -v $(CC)),relay-check)

docs: $(BIN)/.tests
	$(BIN)/pydoctor $(PYDOCTOR) --html-output=build/api fastway

# make bench BENCH='--peer "other-gateway {client} {server}"' measures another beside it; ATTACK has
# the options of bench.attack, EDGE those of bench.edge. Two checkouts in one run, interleaved: BENCH='--tree ../other'.
bench: $(BIN)/.runs
	$(BIN)/python -m bench.gateways $(BENCH)
	$(BIN)/python -m bench.edge $(EDGE)
	$(BIN)/python -m bench.attack --quick $(ATTACK)
	$(BIN)/python -m bench.endpoint
	$(BIN)/python -m bench.loops
	$(BIN)/python -m bench.snet

clean:
	rm -rf $(VENV) run build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
