# Everything is set up from here: `make demo` and `make test` are the only commands a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard csrc/cpu/*)
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test lint bench sanitize clean

demo: $(VENV)/built  ## classify sentences with the embedded model, kernel beside reference
	$(BIN)/python -m dendritic_bert demo

test: lint $(VENV)/built  ## every test
	$(BIN)/pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/built  ## the figures of bench/results, one thread; about 10 minutes
	mkdir -p build
	$(BIN)/python -m pytest bench/bench_*.py -q --benchmark-json=build/bench.json
	$(BIN)/python bench/report.py build/bench.json --output bench/results --plot

sanitize: $(VENV)/built  ## the kernels' tests under AddressSanitizer and UBSan
	DENDRITIC_BERT_SANITIZE=1 $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	$(BIN)/pytest -q tests/test_embed_pool.py tests/test_dsn_logits.py tests/test_bad_input.py tests/test_threads.py

clean:
	rm -rf $(VENV) build dist *.egg-info dendritic_bert/*.so

# torch comes first: it is needed to build, and from there on no build is isolated.
$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "torch>=2.10,<2.15" "setuptools>=77" wheel ninja numpy
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml setup.py
	$(BIN)/pip install -q --no-build-isolation -e ".[fast,train,test,bench]"
	touch $@ $(VENV)/built

# The installation has built the kernels; this builds them again where their sources have changed since.
$(VENV)/built: $(KERNELS) | $(VENV)/installed
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@
