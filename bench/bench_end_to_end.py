"""Text -> label on SST-2: our classifier beside transformers, model2vec, fastText and scikit-learn.

Every timed call gets texts that our tokenizer has not seen, after an untimed call on texts that it has. The others keep
no cache of texts.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from harness import Implementation, Target, largest_error
from peers import Pipeline, dendritic_bert, float64_scores, peers, save_dsn_of_bert_tiny, transformers_bert_tiny
from workload import SEED, SMALL, Texts, sst2

from dendritic_bert import EMBEDDED_MODEL, TextClassifier
from dendritic_bert.inference.tokenization import PackedTokenizer

EMBEDDED, DSN_OF_BERT_TINY = "dendritic-bert, embedded model", "dendritic-bert, DSN of BERT-tiny"
EMBEDDED_FP32, TINY = f"{EMBEDDED} in float32", f"{EMBEDDED}, tiny"
TRANSFORMERS = "transformers BERT-tiny"
SHORT_TARGETS = [
    Target(EMBEDDED, "fastText, list", at_least=2.5), Target(EMBEDDED_FP32, "fastText, list", at_least=1.2),
    *(Target(DSN_OF_BERT_TINY, peer, at_least=speed) for peer, speed in (
        (TRANSFORMERS, 200), ("model2vec", 15), ("fastText, list", 6), ("fastText, one by one", 6)))]
ONE_TEXT_TARGETS = [Target(ours, "fastText, list", at_most=most) for ours, most in (
    (EMBEDDED, 2), (DSN_OF_BERT_TINY, 1))]
BATCH, ROUNDS = (16, 2) if SMALL else (1024, 11)
# So many that what is done once, a digest of the model and five waits for the disk, takes a tenth of the time or less.
FILE_TEXTS = 32 if SMALL else 400_000
ARRAYS, DICTS = "list to arrays", "list to dicts"
FILES = {"text to JSON Lines": ("txt", "jsonl"), "JSON Lines to JSON Lines": ("jsonl", "jsonl"),
         "Parquet to Parquet": ("parquet", "parquet")}


@pytest.fixture
def texts() -> Texts:
    return Texts()


@pytest.fixture(scope="module")
def others() -> dict[str, Pipeline]:
    return peers()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {EMBEDDED: EMBEDDED_MODEL, DSN_OF_BERT_TINY: save_dsn_of_bert_tiny(tmp_path_factory.mktemp("dsn"))}


@pytest.fixture
def ours(texts: Texts, paths: dict[str, str]) -> dict[str, Pipeline]:
    """New for every comparison, so that no cache holds the texts of the one before."""
    pipelines = {name: dendritic_bert(path, trained=name == EMBEDDED) for name, path in paths.items()}
    for pipeline in pipelines.values():
        pipeline.classify(texts.seen)
    return pipelines


def score_error(pipeline: Pipeline, path: str) -> float:
    """The largest error of a score on SST-2 dev, against Hugging Face's tokenizer and the float64 reference."""
    dev = sst2("dev")[0]
    return largest_error([result["score"] for result in pipeline.classify(dev)], float64_scores(path, dev))


def accuracy(pipeline: Pipeline) -> float | None:
    if pipeline.labels is None:
        return None
    dev, labels = sst2("dev")
    return float(np.mean(np.array(pipeline.labels(pipeline.classify(dev))) == labels))


def use_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def implementation(run: Callable[[list[str]], Any], batches: list[list[str]], seen: list[str], *,
                   limit: int | None = None, threads: int = 1, **result: Any) -> Implementation:
    """Classifies the first ``limit`` texts of the next batch every time."""
    turn = count()

    def prepare() -> tuple[list[str]]:
        use_threads(threads)
        run(seen[:len(batches[0][:limit])])
        return (batches[next(turn)][:limit],)

    return Implementation(run, prepare, work=len(batches[0][:limit]), **result)


def conditions(batches: list[list[str]], path: str, calls: str) -> str:
    tokenizer = PackedTokenizer.from_pretrained(path)
    tokens = tokenizer(batches[0]).cu_seqlens[-1] / len(batches[0])
    return (f"SST-2 text that our tokenizer ({tokenizer.engine}) has not seen, a mean of {tokens:.1f} tokens (BERT's "
            f"vocabulary); {calls}; seed {SEED}")


def test_short_texts(compare, texts: Texts, ours, others, paths: dict[str, str]) -> None:
    batches = [texts.fresh(BATCH) for _ in range(ROUNDS + 1)]
    errors = {name: score_error(pipeline, paths[name]) for name, pipeline in ours.items()}
    more = {f"{EMBEDDED}, Hugging Face's tokenizer": dendritic_bert(paths[EMBEDDED], trained=True, engine="tokenizers"),
            EMBEDDED_FP32: dendritic_bert(paths[EMBEDDED], trained=True, dtype="float32"),
            TINY: dendritic_bert("tiny", trained=True)}
    for pipeline in more.values():
        pipeline.classify(texts.seen)
    pipelines = {**others, **more, **ours}
    compare({name: implementation(pipeline.classify, batches, texts.seen, limit=128 if name == TRANSFORMERS else None,
                                  error=errors.get(name), accuracy=accuracy(pipeline))
             for name, pipeline in pipelines.items()},
            title="Short texts, one thread", unit="text", baseline=TRANSFORMERS, targets=SHORT_TARGETS, rounds=ROUNDS,
            conditions=conditions(batches, paths[DSN_OF_BERT_TINY], f"{BATCH} texts per call, for transformers 128 in "
                                  "batches of 64; one thread; the error is that of the score on dev, against Hugging "
                                  "Face's tokenizer and the float64 reference; accuracy -: the head is not trained"))


def test_long_texts(compare, texts: Texts, ours, others, paths: dict[str, str]) -> None:
    rounds = ROUNDS // 2 + 1
    batches = [texts.fresh(BATCH // 4, words=190) if not SMALL else texts.fresh(2) for _ in range(rounds + 1)]
    seen = [" ".join(texts.seen[i:i + 10]) for i in range(0, len(texts.seen), 10)]
    compare({name: implementation(pipeline.classify, batches, seen, limit=32 if name == TRANSFORMERS else None)
             for name, pipeline in {**others, **ours}.items()},
            title="Long texts, one thread", unit="text", baseline=TRANSFORMERS, targets=[], rounds=rounds,
            conditions=conditions(batches, paths[DSN_OF_BERT_TINY],
                                  f"{len(batches[0])} texts per call, for transformers 32; one thread"))


def test_one_text_per_call(compare, texts: Texts, ours, others, paths: dict[str, str]) -> None:
    """Latency: how long a program waits for the label of one text."""
    batches = [texts.fresh(BATCH // 16) for _ in range(ROUNDS + 1)]

    def one_by_one(pipeline: Pipeline) -> Callable[[list[str]], list[Any]]:
        return lambda batch: [pipeline.classify([text]) for text in batch]

    compare({name: implementation(one_by_one(pipeline), batches, texts.seen)
             for name, pipeline in {**others, **ours}.items() if name != "fastText, one by one"},
            title="One text per call, one thread", unit="text", baseline=TRANSFORMERS, targets=ONE_TEXT_TARGETS,
            rounds=ROUNDS, conditions=conditions(batches, paths[DSN_OF_BERT_TINY], "one text per call; one thread"))


def test_threads(compare, texts: Texts, paths: dict[str, str]) -> None:
    """The pipelines that can use a second core. Each has its own classifier: a shared one would have seen the texts."""
    rounds = ROUNDS // 2 + 1
    batches = [texts.fresh(2 * BATCH) for _ in range(rounds + 1)]
    implementations = {}
    for threads in (1, 2):
        suffix = "1 thread" if threads == 1 else f"{threads} threads"
        for name, path in paths.items():
            pipeline = dendritic_bert(path, trained=name == EMBEDDED, threads=threads)
            pipeline.classify(texts.seen)
            implementations[f"{name}, {suffix}"] = implementation(pipeline.classify, batches, texts.seen,
                                                                  threads=threads)
        implementations[f"{TRANSFORMERS}, {suffix}"] = implementation(
            transformers_bert_tiny().classify, batches, texts.seen, limit=128, threads=threads)
    compare(implementations, title="Short texts, one and two threads", unit="text",
            baseline=f"{TRANSFORMERS}, 1 thread", targets=[], rounds=rounds,
            conditions=conditions(batches, paths[DSN_OF_BERT_TINY], f"{2 * BATCH} texts per call, for transformers "
                                  f"128; {os.cpu_count()} cores"))


def write_files(folder: Path, lines: list[str]) -> None:
    """The texts as in.txt, in.jsonl and in.parquet."""
    (folder / "in.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), "utf-8")
    pa.parquet.write_table(pa.table({"text": lines}), folder / "in.parquet")


@pytest.mark.parametrize("name", [EMBEDDED, DSN_OF_BERT_TINY])
def test_files(compare, texts: Texts, paths: dict[str, str], tmp_path: Path, name: str) -> None:
    """What reading and writing add to the classification of a list, with one thread and with two."""
    pool = texts.fresh(FILE_TEXTS if SMALL else 16_000)
    lines = (pool * (FILE_TEXTS // len(pool)))[:FILE_TEXTS]
    write_files(tmp_path, lines)
    classifier = TextClassifier.from_pretrained(paths[name])

    def prepare() -> tuple[()]:
        use_threads(1)
        for output in tmp_path.glob("out.*"):  # or the system would have to give up its pages while we wait
            output.unlink()
        return ()

    def classify_file(formats: tuple[str, str], threads: int) -> None:
        classifier.classify_file(tmp_path / f"in.{formats[0]}", tmp_path / f"out.{formats[1]}", threads=threads,
                                 resume=False)

    implementations: dict[str, Implementation] = {}
    for threads, suffix in ((1, ""), (2, ", 2 threads")):
        runs = {ARRAYS: partial(classifier.predict_array, lines, threads=threads),
                DICTS: partial(classifier, lines, threads=threads),
                **{kind: partial(classify_file, formats, threads) for kind, formats in FILES.items()}}
        implementations |= {f"{kind}{suffix}": Implementation(run, prepare, work=len(lines))
                            for kind, run in runs.items()}
    text, json_lines, table = FILES
    at_most = dict.fromkeys((text, json_lines), 1.25) if name == EMBEDDED else {table: 1 / 0.6}
    targets = [Target(kind, ARRAYS, at_most=most) for kind, most in at_most.items()]
    targets += [Target(f"{kind}, 2 threads", kind, at_least=1.6 if kind == DICTS else 1.85) for kind in (
        ARRAYS, DICTS, *FILES)]
    compare(implementations, title=f"Lists and files, {name}", unit="text", baseline=ARRAYS, targets=targets,
            rounds=ROUNDS // 3 + 1, conditions=f"{len(lines)} texts, {len(pool)} different ones, which the tokenizer "
            f"has seen; files in the cache of the system; one thread unless said; {os.cpu_count()} cores")
