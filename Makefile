# The commands of the README. CMake does the work; `make build` leaves the program at build/tinylora.
MAKEFLAGS += --no-print-directory
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
SOURCES = $(shell git ls-files '*.c' '*.h')

.PHONY: build demo test bench format lint clean configure

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

format:
	clang-format -i $(SOURCES)

lint: configure
	cppcheck --std=c11 --quiet --inline-suppr --enable=warning,performance,portability \
	  --suppress=missingIncludeSystem -I . --force $(filter-out tests/% bench/%,$(filter %.c,$(SOURCES)))
	clang-tidy -p $(BUILD) --quiet $(filter-out tests/% bench/%,$(filter %.c,$(SOURCES)))

clean:
	rm -rf $(BUILD)
