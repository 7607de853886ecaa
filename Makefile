# SPDX-License-Identifier: Apache-2.0
# Everything that is run on gru_engine, from the demo to the release. `make help` lists the targets.
#
# Needs Python 3.10 or newer with its headers, a C compiler and make; Python packages go into a virtual environment in .venv.
# What changed is rebuilt, nothing else. Variables: PYTHON, VENV, CC, CFLAGS, WORDS, ARGS (for pytest).

PYTHON ?= python3
VENV ?= .venv
OUT ?= build/c
ARGS ?=
EVERY ?= 1
export WORDS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

BIN := $(VENV)/bin
SAY := @printf '\n-- %s\n'
VERSION := $(shell sed -n 's/^version = "\([^"]*\)".*/\1/p' pyproject.toml)
SOURCES := $(wildcard src_c/*.c)
HEADERS := $(wildcard src_c/*.h)
C_FILES := $(SOURCES) $(HEADERS) $(wildcard tests/c/*.[ch] examples/*.c)
JOBS := $(shell nproc 2>/dev/null || echo 2)
AGAIN := $(MAKE) -s --no-print-directory
# Side by side, but for what measures: memory, time, threads.
PYTEST = $(BIN)/pytest -q -n $(JOBS) --dist worksteal

# A recipe that fails must not leave its target behind; stamps and objects are kept though only rules name them.
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := build

##@ For everyone
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: $(VENV)/.installed ## the extension module, importable in .venv

.PHONY: demo
demo: build ## pronounce WORDS="..." with the model in the repository
	@$(BIN)/python examples/pronounce.py $$WORDS

.PHONY: test
test: build $(VENV)/.group-test ## C tests and Python tests, without PyTorch
	@$(AGAIN) -j$(JOBS) $(LIBRARY).a $(LIBRARY).so $(OUT)/stream c-programs
	@$(AGAIN) c-run
	$(SAY) "Python tests"
	@$(PYTEST) -m "not measures" $(ARGS)
	@$(BIN)/pytest -q -m measures $(ARGS) || [ $$? -eq 5 ] # none is selected

# ---------------------------------------------------------------------------------------------------- Python environment

define NO_VENV
$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv
endef
define NO_HEADERS
$(PYTHON) has no Python.h, which the extension module needs. On Debian and Ubuntu: apt install python3-dev
endef
export NO_VENV NO_HEADERS

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) must be Python 3.10 or newer"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$$NO_VENV"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	    { echo "$$NO_HEADERS"; exit 1; }
	@command -v $(CC) >/dev/null || { echo "no C compiler ($(CC)). On Debian and Ubuntu: apt install gcc libc6-dev"; exit 1; }
	$(SAY) "Python environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.group-%: pyproject.toml | $(VENV)/.created
	$(SAY) "Python packages of the group $*"
	@$(BIN)/python -m pip install -qq --group $*
	@touch $@

# The module goes beside its source, for each version of Python under a name of its own. The stamp has the time at which the
# build began, so that a source saved meanwhile is built next time.
$(VENV)/.installed: $(VENV)/.group-build setup.py pyproject.toml gru_engine/_core.pyx $(wildcard gru_engine/*.pxi) $(SOURCES) $(HEADERS)
	$(SAY) "gru_engine $(VERSION)"
	@touch $@.began
	@$(BIN)/python -m pip install -qq --no-build-isolation --no-deps --editable .
	@mv $@.began $@
ifeq ($(wildcard gru_engine/_core.*.so),)
.PHONY: $(VENV)/.installed
endif

# ------------------------------------------------------------------------------------------- C library and its test programs

# The flags of setup.py; the reasons are there. STRICT=1 makes every warning an error, SANITIZE is a list of sanitizers.
# Objects of other flags or another compiler need another OUT.
C_FLAGS := -O3 -std=c11 -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -pthread -fPIC -Wall -Wextra
ifdef STRICT
C_FLAGS += -Werror -Wshadow -Wundef -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wconversion
endif
ifdef SANITIZE
C_FLAGS += -O1 -g -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
# Everything in them is inlined: with a check before each access in line, and of pointers that AddressSanitizer checks
# anyway, they take gcc ten minutes and gigabytes.
$(OUT)/src_c/kernels_%.o: C_FLAGS += -g0 --param asan-instrumentation-with-call-threshold=0 \
    -fno-sanitize=pointer-overflow,null,object-size
endif
# For the exhaustive test of the activations only: the library has threads of its own.
OPENMP := $(shell echo 'int x;' | $(CC) -fopenmp -include omp.h -fPIC -shared -x c - -o /dev/null 2>/dev/null && echo -fopenmp)
COMPILE = $(CC) $(C_FLAGS) -DGRU_ENGINE_VERSION='"$(VERSION)"' -Isrc_c -MMD -MP $(CPPFLAGS) $(CFLAGS)
LIBRARY := $(OUT)/libgru_engine
ifneq ($(shell uname),Darwin)
SHARED_FLAGS := -Wl,-z,defs
endif

# test_activations.c is about the kernels' building blocks: it includes them itself and consists of several files.
OF_ACTIVATIONS := tests/c/test_activations.c tests/c/test_primitives.c $(wildcard tests/c/vec_isa_*.c)
TESTS := $(patsubst tests/c/%.c,%,$(filter-out $(OF_ACTIVATIONS),$(wildcard tests/c/test_*.c)))
PROGRAMS := $(TESTS) $(if $(wildcard tests/c/test_activations.c),test_activations)
EMULATOR ?=
STRIDE ?= 8191

$(OUT)/%.o: %.c
	@mkdir -p $(@D)
	@$(COMPILE) -c $< -o $@

$(LIBRARY).a: $(SOURCES:%.c=$(OUT)/%.o)
	@rm -f $@
	@$(AR) rcs $@ $^

$(LIBRARY).so: $(SOURCES:%.c=$(OUT)/%.o)
	@$(CC) -shared $(C_FLAGS) $(CFLAGS) $(LDFLAGS) $(SHARED_FLAGS) $^ -o $@ -lm

$(OF_ACTIVATIONS:%.c=$(OUT)/%.o): C_FLAGS += $(OPENMP)
$(OUT)/test_activations: C_FLAGS += $(OPENMP)
$(OUT)/test_activations: $(OF_ACTIVATIONS:%.c=$(OUT)/%.o)
$(TESTS:%=$(OUT)/%): $(OUT)/%: $(OUT)/tests/c/%.o $(LIBRARY).a
$(OUT)/stream: $(OUT)/examples/stream.o $(LIBRARY).a
$(PROGRAMS:%=$(OUT)/%) $(OUT)/stream:
	@$(CC) $(C_FLAGS) $(CFLAGS) $(LDFLAGS) $^ -o $@ -lm

-include $(wildcard $(OUT)/src_c/*.d $(OUT)/tests/c/*.d $(OUT)/examples/*.d)

##@ The C library
.PHONY: lib
lib: $(LIBRARY).a $(LIBRARY).so ## static and shared library in build/c, without Python
	@echo $^

.PHONY: example
example: $(OUT)/stream ## examples/stream.c as build/c/stream
	@echo $^

.PHONY: c-programs
c-programs: $(PROGRAMS:%=$(OUT)/%)

.PHONY: c-run
c-run:
	$(SAY) "C tests in $(OUT)"
	@set -e; for name in $(PROGRAMS); do \
	    case $$name in test_activations) options="--stride $(STRIDE)" ;; *) options= ;; esac; \
	    echo "$$name $$options"; $(EMULATOR) $(OUT)/$$name $$options; \
	done

.PHONY: c-test
c-test: ## the C tests alone; CC, OUT, STRICT=1, SANITIZE=... as you like
	@$(AGAIN) -j$(JOBS) c-programs
	@$(AGAIN) c-run

.PHONY: activations
activations: ## the activation functions over all 2^32 inputs (minutes); EVERY=7 for every seventh, ONLY=tanh for those called so
	@$(AGAIN) -j$(JOBS) $(OUT)/test_activations
	@$(OUT)/test_activations --stride $(EVERY) $(if $(ONLY),--only $(ONLY))

##@ The examples
EXAMPLES := forecast generate_text classify_text recommend listen

.PHONY: examples examples-run
examples: build ## train, export and run all of docs/EXAMPLES.md, in the environment of torch-test (minutes)
	@$(AGAIN) VENV=build/venv-torch examples-run
examples-run: $(VENV)/.group-build $(VENV)/.group-torch $(VENV)/.group-examples
	@set -e; for name in $(EXAMPLES); do \
	    printf '\n-- examples/%s.py\n' $$name; PYTHONPATH=. $(BIN)/python examples/$$name.py $(ARGS); \
	done

##@ More checks
# The environments of the frameworks have no engine of their own: what `build` has put beside the sources is used.
define FRAMEWORK_TESTS
.PHONY: $(1)-test $(1)-run
$(1)-test: build ## comparison with $(2), in an environment of its own
	@$$(AGAIN) VENV=build/venv-$(1) $(1)-run
$(1)-run: $$(VENV)/.group-build $$(VENV)/.group-test $$(VENV)/.group-$(1)
	$$(SAY) "Tests against $(2)"
	@PYTHONPATH="$$$$PWD" OMP_NUM_THREADS=1 KERAS_BACKEND=numpy $$(PYTEST) tests/$(1) -m "not jax_backend" $$(ARGS)
	@PYTHONPATH="$$$$PWD" OMP_NUM_THREADS=1 KERAS_BACKEND=jax $$(PYTEST) tests/$(1) -m jax_backend $$(ARGS) || [ $$$$? -eq 5 ] # there is none
endef
$(eval $(call FRAMEWORK_TESTS,torch,PyTorch))
$(eval $(call FRAMEWORK_TESTS,onnx,ONNX Runtime))
$(eval $(call FRAMEWORK_TESTS,jax,Flax and Haiku))
$(eval $(call FRAMEWORK_TESTS,keras,Keras))

# PyTorch first, so that nothing else chooses its version. ARGS=--help tells the options.
.PHONY: bench
bench: ## speed, beside other runtimes in an environment of its own; ARGS=--quick for a short run
	@$(AGAIN) VENV=build/venv-bench build/venv-bench/.group-torch
	@$(AGAIN) VENV=build/venv-bench bench-run

.PHONY: bench-run
bench-run: build lib $(VENV)/.group-bench
	$(SAY) "Benchmark"
	@$(BIN)/python -m benchmarks $(ARGS)

# Comparisons of ways to compute are part of `make test`; here every instruction set, and the sanitizers, meet what computes.
named = $(wildcard $(1:%=tests/test_%.py))
COMPUTING := $(call named,api axes cells contexts demo dtypes_bits generation inputs operations operations_norms random_networks \
    reference states stored_attention)
SANITIZED := $(call named,api axes cells command_line contexts contexts_files contexts_networks files format_damage generation inputs operations operations_norms \
    random_networks states stored_attention)

# The interpreter is not instrumented, so the run-time library comes first by LD_PRELOAD; leaks are the C tests' business.
.PHONY: sanitize
sanitize: build $(VENV)/.group-test ## C tests and Python tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(AGAIN) c-test OUT=build/c/sanitize SANITIZE=address,undefined
	$(SAY) "Python tests under sanitizers"
	@GRU_ENGINE_SANITIZE=address,undefined GRU_ENGINE_LIBRARY=build/c/sanitize/libgru_engine.a $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	@export LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/sanitize/lib \
	    GRU_ENGINE_TESTED=build/sanitize/lib; \
	$(PYTEST) -m "not measures" $(SANITIZED) $(ARGS)

.PHONY: isa
isa: build $(VENV)/.group-test ## what computes, tested once per instruction set that this CPU can run; ISAS="..." for some
	@$(AGAIN) -j$(JOBS) c-programs
	@set -e; for isa in $${ISAS:-$$($(BIN)/python -c 'import gru_engine; print(*gru_engine.cpu_info()["usable"])')}; do \
	    printf '\n-- GRU_ENGINE_ISA=%s\n' $$isa; \
	    for name in $(TESTS); do GRU_ENGINE_ISA=$$isa $(OUT)/$$name; done; \
	    GRU_ENGINE_ISA=$$isa $(PYTEST) -m "not measures" $(COMPUTING) $(ARGS); \
	done

# Cross-compiled and emulated: the same hashes of all results must come out as here.
.PHONY: emulated-arm
emulated-arm: ## the C tests on an emulated ARM processor, bits compared with this one
	@$(AGAIN) c-test CC=aarch64-linux-gnu-gcc OUT=build/c/aarch64 STRIDE=1048573 \
	    EMULATOR="qemu-aarch64 -L /usr/aarch64-linux-gnu"
	@$(AGAIN) -j$(JOBS) $(OUT)/test_activations
	$(SAY) "the same bits on both"
	@$(OUT)/test_activations --stride 1048573 --hash | grep '^hash' >build/c/hashes
	@qemu-aarch64 -L /usr/aarch64-linux-gnu build/c/aarch64/test_activations --stride 1048573 --hash | grep '^hash' | \
	    diff build/c/hashes - && wc -l <build/c/hashes

# Without fused multiply-add even fmaf is emulated: guard pages and teams, which do not depend on it, would take minutes.
.PHONY: emulated-old
emulated-old: ## the C tests on an emulated x86 processor from before AVX
	@$(AGAIN) c-test STRIDE=1048573 EMULATOR="qemu-x86_64 -cpu Nehalem" PROGRAMS="test_step test_activations"

.PHONY: lint lint-ruff lint-cython lint-format lint-types lint-strict lint-bare lint-names
lint: lint-ruff lint-cython lint-format lint-types lint-strict lint-bare lint-names ## style, types, warnings, exported names

lint-ruff: $(VENV)/.group-lint
	$(SAY) "ruff"
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --diff .

lint-cython: $(VENV)/.group-lint
	$(SAY) "cython-lint"
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/cython-lint gru_engine

lint-format: $(VENV)/.group-lint
	$(SAY) "clang-format"
	@bad=0; for file in $(C_FILES); do \
	    $(BIN)/clang-format $$file | diff -u --label $$file --label "$$file, formatted" $$file - || bad=1; \
	done; exit $$bad

lint-types: $(VENV)/.group-build $(VENV)/.group-lint
	$(SAY) "mypy"
	@$(BIN)/mypy --no-error-summary

lint-strict:
	$(SAY) "$(CC) with strict warnings"
	@$(AGAIN) -j$(JOBS) OUT=build/c/strict STRICT=1 lib example c-programs

lint-bare:
	$(SAY) "$(CC) -O2 -c src_c/*.c and nothing else"
	@rm -rf build/c/bare && mkdir -p build/c/bare && cd build/c/bare && $(CC) -O2 -c $(SOURCES:%=../../../%)

lint-names:
	$(SAY) "global names begin with gru_"
	@$(AGAIN) -j$(JOBS) $(LIBRARY).a $(LIBRARY).so
	@! nm -g --defined-only -A $(LIBRARY).a | awk '{ print $$NF }' | grep -v '^_\{0,1\}gru_'
	@! nm -D --defined-only $(LIBRARY).so | awk '{ print $$NF }' | grep -v '^_\{0,1\}gru_'

.PHONY: format
format: $(VENV)/.group-lint ## rewrite the sources in the style that lint checks
	@$(BIN)/ruff check --quiet --fix-only . ; $(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(C_FILES)

.PHONY: stubtest
stubtest: build $(VENV)/.group-lint ## the stubs against the extension module
	@$(BIN)/python -m mypy.stubtest gru_engine._core --allowlist .ci/stubtest-allowlist.txt --ignore-unused-allowlist \
	    --ignore-disjoint-bases

.PHONY: wheel
wheel: $(VENV)/.group-release ## wheel and sdist in dist, tested in an empty environment
	$(SAY) "wheel and sdist"
	@rm -rf dist build/venv-wheel
	@$(BIN)/python -m build >build/wheel.log 2>&1 || { tail -n 50 build/wheel.log; exit 1; }
	@ls -l dist | awk 'NR > 1 { print $$5, $$9 }'
	$(SAY) "the wheel in an empty environment"
	@$(PYTHON) -m venv build/venv-wheel
	@build/venv-wheel/bin/python -m pip install -qq dist/*.whl
	@build/venv-wheel/bin/python .ci/check_wheel.py

.PHONY: clean
clean: ## remove what was built; the environments stay
	@rm -rf build/c build/sanitize build/lib.* build/temp.* build/bdist.* build/wheel.log dist *.egg-info
	@rm -f gru_engine/_core.*.so gru_engine/_core.c $(VENV)/.installed

.PHONY: distclean
distclean: clean ## and the environments too
	@rm -rf $(VENV) build/venv-*
