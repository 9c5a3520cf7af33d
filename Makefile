# make run: set up, then a gateway with a demo game server. make test: set up, then all checks.

PYTHON ?= python3
VENV ?= .venv
PYDOCTOR := --quiet --quiet --warnings-as-errors --docformat=plaintext --project-name=fastway
BIN := $(VENV)/bin

CORE := $(CURDIR)/fastway/relay
CORE_FILES := $(filter-out $(CORE)/_%,$(wildcard $(CORE)/*.c))
CORE_TESTS := test_pool test_relay test_queues test_turns test_ends test_websocket test_tls \
	test_direct test_rates test_multicast test_each test_shake test_frames
SANITIZE := -std=c11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -Wall -Wextra -Werror -I$(CORE)
RACES := -std=gnu11 -g -O1 -fsanitize=thread -Wall -Wextra -Werror -I$(CORE)
RELAY_TEST := $(CURDIR)/tests/relay

BUILT := setup.cfg setup.py pyproject.toml $(wildcard fastway/relay/*.[ch])

JS := clients/js
JS_PAGE := fastway/demo_page/client
TYPES := tests/types

.PHONY: run play test beside lint check relay-check relay-fuzz js-check js-page js-skip docs bench \
	clean

$(BIN)/.runs: $(BUILT)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[tls,snet]'
	@touch $@

# What has this has that too, built once.
$(BIN)/.tests: $(BUILT)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[tls,snet,test,lint]'
	@touch $(BIN)/.runs $@

run: $(BIN)/.runs
	@mkdir -p run
	@exec $(BIN)/fastway demo --run-dir run

play: $(BIN)/.runs
	@exec $(BIN)/fastway play

lint: $(BIN)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Some tests wait for a clock, so two cores have three workers. Hundreds of processes begin in them:
# none is to compile all of fastway again, whatever the caller's settings are. By their names long
# modules come first; by their numbers of tests those that start processes would come last.
check: export PYTHONDONTWRITEBYTECODE :=
check: $(BIN)/.tests $(if $(shell command -v npm),$(TYPES)/node_modules/.installed)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# The native core alone, under ASan and UBSan: its tests, then a few seconds of random days. Its
# system calls are the tests' (calls.h). What has a thread runs under TSan too, where there is one
# and the system has not put memory where it cannot be (more than 28 random bits, GCC before 14).
relay-check:
	@mkdir -p build/relay
	cd build/relay && $(CC) $(SANITIZE) -DCORE -include $(RELAY_TEST)/calls.h -c $(CORE_FILES)
	$(CC) $(SANITIZE) -D_GNU_SOURCE -o build/bed.o -c $(RELAY_TEST)/bed.c
	$(CC) $(SANITIZE) -D_GNU_SOURCE -o build/sums.o -c $(RELAY_TEST)/sums.c
	for test in $(CORE_TESTS); do \
		$(CC) $(SANITIZE) -D_GNU_SOURCE -o build/$$test $(RELAY_TEST)/$$test.c \
			build/bed.o build/sums.o build/relay/*.o && build/$$test || exit 1; \
	done
	@if ! echo 'int main(void) { return 0; }' | $(CC) $(RACES) -xc - -o build/races 2>/dev/null; \
	then echo "races are not looked for: there is no ThreadSanitizer"; exit 0; fi; \
	$(CC) $(RACES) -o build/races $(RELAY_TEST)/test_shake.c $(CORE)/shake.c || exit 1; \
	build/races >build/races.txt 2>&1 && echo "test_shake: no races" && exit 0; \
	cat build/races.txt; grep -q "unexpected memory mapping" build/races.txt
	$(CC) $(SANITIZE) -D_GNU_SOURCE -DSTANDALONE -o build/relay-fuzz $(RELAY_TEST)/fuzz.c \
		build/sums.o build/relay/*.o
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

# The client for browsers and node (TypeScript): its tests, and that the build of it which the
# demo's page uses is that of its sources. `make js-page` makes it so.
$(JS)/node_modules/.installed $(TYPES)/node_modules/.installed: %/node_modules/.installed: \
		%/package-lock.json
	cd $* && npm ci --silent --ignore-scripts
	@touch $@

js-check: $(JS)/node_modules/.installed
	rm -rf $(JS)/dist
	cd $(JS) && npm test --silent
	diff -r -x '*.d.ts' $(JS)/dist $(JS_PAGE) || (echo "$(JS_PAGE) is old: make js-page"; exit 1)

js-page: $(JS)/node_modules/.installed
	rm -rf $(JS)/dist $(JS_PAGE)
	cd $(JS) && npm run --silent build
	mkdir -p $(JS_PAGE) && cp $(JS)/dist/*.js $(JS_PAGE)

js-skip:
	@echo "clients/js is not tested: there is no npm"

# What needs one core each goes two at a time; then the tests, which take all there are.
test: $(BIN)/.tests
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target beside
	@$(MAKE) --no-print-directory check

beside: $(if $(shell command -v $(CC)),relay-check) lint docs \
	$(if $(shell command -v npm),js-check,js-skip)

docs: $(BIN)/.tests
	$(BIN)/pydoctor $(PYDOCTOR) --html-output=build/api fastway

# make bench BENCH='--peer "other-gateway {client} {server}"' measures another beside it; ATTACK has
# the options of bench.attack, DRAIN of bench.drain, EDGE of bench.edge, PUSH of bench.push, SIEGE of
# bench.siege. Two checkouts in one run, interleaved: BENCH='--tree ../other'.
bench: $(BIN)/.runs
	$(BIN)/python -m bench.gateways $(BENCH)
	$(BIN)/python -m bench.edge $(EDGE)
	$(BIN)/python -m bench.push $(PUSH)
	$(BIN)/python -m bench.attack --quick $(ATTACK)
	$(BIN)/python -m bench.siege --quick $(SIEGE)
	$(BIN)/python -m bench.drain $(DRAIN)
	$(BIN)/python -m bench.endpoint
	$(BIN)/python -m bench.loops
	$(BIN)/python -m bench.snet

clean:
	rm -rf $(VENV) run build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf $(JS)/node_modules $(JS)/dist $(JS)/*.tgz $(TYPES)/node_modules
