# The everyday words. CMake builds (see docs/building.md); nothing here is needed that `cmake` and `ctest` cannot do.
BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
CMAKE_OPTIONS ?=
SOURCES = $(shell git ls-files --cached --others --exclude-standard '*.c' '*.h')
SANITIZED = -DCMAKE_BUILD_TYPE=Debug -DDM_SANITIZE=address,undefined

# configure FOLDER,OPTIONS: only the first time; Ninja repeats it when a CMake file changes.
define configure
	@command -v cmake >/dev/null && command -v ninja >/dev/null || { echo "CMake or Ninja is missing: run 'make deps' first"; exit 1; }
	@test -f $(1)/build.ninja || cmake -S . -B $(1) -G Ninja $(2) $(CMAKE_OPTIONS)
endef

.PHONY: all
all: ## build the library and the program in $(BUILD)/
	$(call configure,$(BUILD),)
	@ninja -C $(BUILD) -j $(JOBS)

.PHONY: deps
deps: ## install what building, testing and the demo need (Debian, Ubuntu)
	@scripts/deps build test corpus-small

.PHONY: demo
demo: deps ## text -> tokenizer -> trained model -> generated text, in demo/
	@$(MAKE) --no-print-directory all CMAKE_OPTIONS="$(CMAKE_OPTIONS)"
	@scripts/demo $(BUILD)/dilmodeli demo

.PHONY: reference reference-dense
reference: ## train the reference model: hours, resumable, in ~/.cache/dilmodeli/reference; options for `train` in REFERENCE_OPTIONS
reference-dense: ## the same of the dense reference model, in GPT-2's shape
reference reference-dense:
	@scripts/deps build corpus
	@$(MAKE) --no-print-directory all
	@scripts/reference $(BUILD)/dilmodeli $(if $(filter %-dense,$@),dense,mixture) $(REFERENCE_OPTIONS)

.PHONY: test
test: deps ## build and run all tests
	@$(MAKE) --no-print-directory all
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure

.PHONY: test-sanitize
test-sanitize: deps ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call configure,build-asan,$(SANITIZED))
	@ninja -C build-asan -j $(JOBS)
	@ctest --test-dir build-asan -j $(JOBS) --output-on-failure

.PHONY: test-tsan
test-tsan: deps ## the tests where threads meet under ThreadSanitizer, with LLVM's OpenMP, which tells it about its barriers
	@scripts/deps lint
	$(call configure,build-tsan,-DCMAKE_BUILD_TYPE=Debug -DDM_SANITIZE=thread -DCMAKE_C_COMPILER=clang)
	@ninja -C build-tsan -j $(JOBS) thread-tests
	@TSAN_OPTIONS="ignore_noninstrumented_modules=1 $$TSAN_OPTIONS" \
		ctest --test-dir build-tsan -L threads -j $(JOBS) --output-on-failure

.PHONY: test-aarch64
test-aarch64: deps ## cross-build for aarch64 and run the tests in an emulator
	@scripts/deps aarch64
	@scripts/deps-aarch64
	$(call configure,build-aarch64,-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake)
	@ninja -C build-aarch64 -j $(JOBS)
	@ctest --test-dir build-aarch64 -j $(JOBS) --output-on-failure

.PHONY: fuzz
FUZZ_SECONDS ?= 60
FUZZ_BUILD ?= RelWithDebInfo
fuzz: deps ## run each fuzz target for FUZZ_SECONDS (60) on what hostile files may hold
	@scripts/deps lint
	$(call configure,build-fuzz,-DDM_FUZZ=ON -DCMAKE_BUILD_TYPE=$(FUZZ_BUILD) -DCMAKE_C_COMPILER=clang)
	@ninja -C build-fuzz -j $(JOBS) fuzz-targets
	@scripts/fuzz build-fuzz $(FUZZ_SECONDS)

.PHONY: peer
peer: ## fetch llama.cpp, Hugging Face's tokenizers and OpenAI's client, with which tests compare text and ids, and ask the server; what drives a browser to test its page
	@scripts/deps peer
	@cd tests/peer && npm install --no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund
	@cd tests/page && npm install --no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund
	@cd tests/openai && npm install --no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund

.PHONY: bench
bench: ## inference beside llama.cpp, training beside PyTorch, memory, bfloat16's cost, kernels: about an hour, machine idle
	@scripts/deps build test bench
	@$(MAKE) --no-print-directory peer || echo "llama.cpp could not be fetched: dilmodeli is measured alone"
	@$(MAKE) --no-print-directory all
	@ninja -C $(BUILD) --quiet dm-bench-tokenizer dm-bench-vector dm-bench-peak dm-bench-quantized dm-bench-tiles
	@bench/encoding $(BUILD)
	@$(BUILD)/bench/dm-bench-vector
	@$(BUILD)/bench/dm-bench-quantized
	@$(BUILD)/bench/dm-bench-tiles
	@/usr/bin/python3 bench/inference.py $(BUILD)
	@bench/load $(BUILD)/dilmodeli
	@/usr/bin/python3 bench/train.py $(BUILD)
	@bench/memory $(BUILD)/dilmodeli
	@bench/precision $(BUILD)/dilmodeli

.PHONY: format format-check
format: ## bring all sources into the house style
	@clang-format -i $(SOURCES)
format-check: ## fail where a source is not in it
	@clang-format --dry-run -Werror $(SOURCES)

.PHONY: lint
lint: deps ## clang-tidy over all sources
	@scripts/deps lint
	$(call configure,build-clang,-DCMAKE_C_COMPILER=clang)
	@scripts/lint build-clang $(JOBS)

.PHONY: install
install: all ## program, header, libraries, pkg-config file to $(DESTDIR)$(PREFIX)
	@cmake --install $(BUILD) --prefix $(PREFIX)

.PHONY: clean
clean: ## remove the build folders; demo/ stays
	rm -rf build build-asan build-tsan build-clang build-aarch64 build-fuzz

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'
