"""A classifier in other processes: copied, pickled, forked, hashed; a copy gives the same results to the bit."""

import copy
import functools
import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from helpers import REPOSITORY
from small_classifier import WORDS, hugging_face_tokenizer, small_model

from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.inference.tokenizer_engines import ENGINES

TEXTS = [*WORDS, "", "[SEP] in the text", "the lazy dog " * 20]


TOKENIZER = hugging_face_tokenizer()


def make(engine=None, dtype=None, tokenizer_settings=(), **config) -> TextClassifier:
    tokenizer = copy.deepcopy(TOKENIZER)
    for name, value in dict(tokenizer_settings).items():
        setattr(tokenizer, name, value)
    model = small_model(**config)
    return TextClassifier(model if dtype is None else model.prepare(dtype), PackedTokenizer(tokenizer, engine))


CLASSIFIERS = {
    "plain": make,
    **{engine: functools.partial(make, engine) for engine in ENGINES},
    "int8 tables": functools.partial(make, dtype=torch.int8),
    "float16 tables": functools.partial(make, dtype=torch.float16),
    "left": functools.partial(make, tokenizer_settings={"truncation_side": "left", "model_max_length": 12}),
    "special tokens split": functools.partial(make, tokenizer_settings={"split_special_tokens": True}),
    "one label": functools.partial(make, num_labels=1),
    "regression": functools.partial(make, num_labels=1, problem_type="regression"),
    "several labels": functools.partial(make, num_labels=3, problem_type="multi_label_classification"),
    "head of two layers": functools.partial(make, head_hidden=8),
    "BERT's encoder": functools.partial(make, dsn=False),
}


def through(module):
    return lambda value: (library := pytest.importorskip(module)).loads(library.dumps(value))


COPIES = {
    **{f"pickle {protocol}": lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
       for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "cloudpickle": through("cloudpickle"),
    "dill": through("dill"),
    "twice": lambda value: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(value)))),
}


@pytest.fixture(scope="module")
def classifier():
    return make()


@pytest.mark.parametrize("build", CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize("used", [True, False])
def test_every_setting_is_copied(build, used):
    classifier = build()
    if used:
        classifier(TEXTS)
    copied = pickle.loads(pickle.dumps(classifier))
    assert copied.num_truncated == 0
    assert copied(TEXTS) == classifier(TEXTS)
    assert copied.num_truncated > 0
    assert copied.fingerprint() == classifier.fingerprint()
    assert (copied.labels, copied.max_length) == (classifier.labels, classifier.max_length)
    for name in ("engine", "reason", "truncation_side", "model_max_length", "single", "pair"):
        assert getattr(copied.tokenizer, name) == getattr(classifier.tokenizer, name)


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
def test_every_way_to_copy(classifier, make_copy):
    expected = classifier(TEXTS)
    counted = classifier.num_truncated
    copied = make_copy(classifier)
    assert copied(TEXTS) == expected
    assert (copied.num_truncated, classifier.num_truncated) == (1, counted)
    packed = make_copy(classifier.tokenizer)(TEXTS)
    assert packed.input_ids.tolist() == classifier.tokenizer(TEXTS).input_ids.tolist()


def test_a_deep_copy_is_on_its_own(classifier):
    expected = classifier(TEXTS)
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        other.model.classifier.bias[0] += 10
    assert other(TEXTS) != expected
    assert classifier(TEXTS) == expected


def test_an_engine_that_is_missing_there(classifier, monkeypatch):
    """Where none was asked for, the next one serves; where one was, the error says what is missing."""
    forced = make("native")
    expected, data, forced_data = classifier(TEXTS), pickle.dumps(classifier), pickle.dumps(forced)
    monkeypatch.setitem(sys.modules, "dendritic_bert._engine", None)
    copied = pickle.loads(data)
    assert copied.tokenizer.engine == "tokenizers"
    assert copied(TEXTS) == expected
    with pytest.raises(ValueError, match="'native', which cannot serve this tokenizer: The native engine is not built"):
        pickle.loads(forced_data)


# What a process that only classifies has no use for, and what takes seconds to import.
NOT_NEEDED = {"datasets", "matplotlib", "optuna", "pandas", "perforatedai", "pyarrow", "sklearn", "torchmetrics",
              "wandb", "dendritic_bert.cli", "dendritic_bert.datasets", "dendritic_bert.growth",
              "dendritic_bert.training"}


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools(classifier, method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(classifier, [TEXTS, "fox"]) == [classifier(TEXTS), classifier("fox")]
        if method == "spawn":  # a fresh process
            modules = set(pool.apply(eval, ("[*__import__('sys').modules]",)))
            assert "dendritic_bert.inference.classifier" in modules
            assert not NOT_NEEDED & modules


def test_process_pool_executor(classifier):
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(classifier, [TEXTS, "fox"])) == [classifier(TEXTS), classifier("fox")]
        assert pool.submit(classifier.predict, WORDS).result().labels == classifier.predict(WORDS).labels


def test_joblib(classifier):
    """Its processes take functions that have no name, by way of cloudpickle."""
    loky = pytest.importorskip("joblib.externals.loky", reason="joblib is not installed")
    with loky.ProcessPoolExecutor(1) as pool:
        assert list(pool.map(lambda texts: classifier(texts), [TEXTS, "fox"])) == [classifier(TEXTS), classifier("fox")]


FORKED = """
import os, pickle, sys, torch
torch.set_num_threads(2)
from dendritic_bert import TextClassifier
classifier = TextClassifier.from_pretrained()
texts = ["good film, bad film " * 100] * 2000  # more than one thread's share
expected = classifier(texts)
scores = [result["score"] for result in expected]
calls = [lambda: classifier(texts) == expected, lambda: classifier(texts, threads=1) == expected,
         lambda: classifier(texts, threads=3) == expected, lambda: classifier(texts, batch_size=500) == expected,
         lambda: classifier.predict(texts).scores.tolist() == scores,
         lambda: pickle.loads(pickle.dumps(classifier))(texts) == expected]
for number, call in enumerate(calls):
    child = os.fork()
    if child == 0:
        os._exit(0 if call() and torch.get_num_threads() == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0, number
print("same")
"""
HASHED = """
from datasets.fingerprint import Hasher
from dendritic_bert import TextClassifier
classifier = TextClassifier.from_pretrained()
print([Hasher.hash(value) for value in (classifier, classifier.predict, classifier.tokenizer)])
"""


@pytest.fixture(scope="module")
def other_process():
    """What a process prints that forks after torch has used its threads, and then hashes.

    GNU's OpenMP would wait for ever on a forked thread: after a while the process is killed.
    """
    code = FORKED + (HASHED if importlib.util.find_spec("datasets") else "")
    child = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
                             start_new_session=True, env=os.environ | {
                                 "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "1"})
    try:
        return child.communicate(timeout=240)[0].splitlines()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, 9)
            child.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_after_torch_has_used_its_threads(other_process):
    assert other_process[:1] == ["same"]


# ---- datasets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """A data set on disk: those have caches."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": TEXTS * 2}).save_to_disk(tmp_path / "texts")
    return datasets.load_from_disk(tmp_path / "texts")


def test_map_finds_its_cache(classifier, stored, monkeypatch):
    calls = []
    call = TextClassifier.__call__
    monkeypatch.setattr(TextClassifier, "__call__", lambda self, texts: calls.append(1) or call(self, texts))

    def label(batch):
        return {"label": [result["label"] for result in classifier(batch["text"])]}

    expected = classifier.predict(TEXTS).labels * 2
    calls.clear()
    assert stored.map(label, batched=True, batch_size=10)["label"][:] == expected
    assert calls
    calls.clear()
    assert stored.map(label, batched=True, batch_size=10)["label"][:] == expected
    assert not calls, "the classifier must hash as before, whatever it has been used for"


@pytest.mark.parametrize("kind", [None, "numpy", "pandas", "arrow"])
def test_columns_in_every_format(classifier, stored, kind):
    column = stored.with_format(kind)[:]["text"]
    assert classifier.predict(column).scores.tolist() == classifier.predict(TEXTS * 2).scores.tolist()


def test_map_in_two_processes(classifier, stored):
    mapped = stored.map(lambda batch: {"label": classifier.predict(batch["text"]).labels}, batched=True, num_proc=2)
    assert mapped["label"][:] == classifier.predict(TEXTS).labels * 2


def test_hashes_are_the_same_in_every_process_and_after_use(other_process):
    hasher = pytest.importorskip("datasets.fingerprint").Hasher
    classifier = TextClassifier.from_pretrained()
    hashes = [hasher.hash(value) for value in (classifier, classifier.predict, classifier.tokenizer)]
    classifier(["a good film " * 500] * 5)
    assert hashes == [hasher.hash(value) for value in (classifier, classifier.predict, classifier.tokenizer)]
    assert other_process[1:] == [str(hashes)]


def test_hashes_differ_where_labels_may(classifier):
    hasher = pytest.importorskip("datasets.fingerprint").Hasher
    assert hasher.hash(make()) == hasher.hash(classifier)
    settings = [{"truncation_side": "left"}, {"model_max_length": 12}, {"split_special_tokens": True}]
    others = [make(seed=1), make(num_labels=3), *(make(tokenizer_settings=changed) for changed in settings)]
    assert len({hasher.hash(other) for other in (classifier, *others)}) == len(others) + 1
