# The commands of the README. CMake does the work; `make build` leaves the program at build/tinylora.
MAKEFLAGS += --no-print-directory
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
SOURCES = $(shell git ls-files '*.c' '*.h')

FUZZ_BUILD ?= build-fuzz
SECONDS ?= 60
TARGETS ?=

.PHONY: build demo test bench fuzz format lint clean configure

build: configure
	@cmake --build $(BUILD) --target tinylora -j $(JOBS)

configure:
	@cmake/install-missing.sh
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) > $(BUILD)-configure.log || { cat $(BUILD)-configure.log; exit 1; }
	@rm -f $(BUILD)-configure.log

# A sweep of seven learning rates with 13 trained scalars. Typed again, it does nothing twice.
demo: build
	$(BUILD)/tinylora sweep experiments/presets/budget13-lr.json
	$(BUILD)/tinylora best --experiment budget13-lr
	@echo
	@echo "next:  $(BUILD)/tinylora scan experiments/presets/abacus-surface.json    a loss surface, as figures/*.png"
	@echo "       $(BUILD)/tinylora export figures --experiment budget13-lr         what the sweep looks like"
	@echo "       $(BUILD)/tinylora export notebook --experiment budget13-lr        tables and figures to go on from"

test: configure
	@cmake --build $(BUILD) --target tests -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

bench: configure
	@cmake --build $(BUILD) --target tinylora benches -j $(JOBS)
	@bench/run.sh $(BUILD)

# Every parser under any bytes for SECONDS each (all of them, or TARGETS="core_json rl_dataset"); tests/fuzz/run.sh says more.
fuzz:
	@cmake/install-missing.sh fuzz
	@cmake -S . -B $(FUZZ_BUILD) -DCMAKE_C_COMPILER=clang-14 -DTINYLORA_FUZZ=ON > $(FUZZ_BUILD)-configure.log || \
	  { cat $(FUZZ_BUILD)-configure.log; exit 1; }
	@rm -f $(FUZZ_BUILD)-configure.log
	@cmake --build $(FUZZ_BUILD) --target fuzzers -j $(JOBS)
	@tests/fuzz/run.sh $(FUZZ_BUILD) $(SECONDS) $(TARGETS)

format:
	clang-format -i $(SOURCES)

# Longer than a cup of coffee: CI does not run it.
lint: configure
	@cmake/install-missing.sh lint
	@cmake --build $(BUILD) --target tinylora -j $(JOBS)
	@cmake/lint.sh $(BUILD) $(JOBS)

clean:
	rm -rf $(BUILD)
