"""What the benches run on: token ids, weights and texts, from a fixed seed, the same for every implementation."""

import csv
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

# Shrinks every size until a bench takes seconds, for the tests of the benches: the times then mean nothing.
SMALL = os.environ.get("DENDRITIC_BERT_BENCH_SMALL") == "1"
SEED = 0
VOCAB_SIZE = 500 if SMALL else 30522
MAX_POSITIONS = 512
NUM_LABELS = 2


class Weights(NamedTuple):
    """A Dendritic Semantic Network (DSN) as BERT initialises it, in float32. LayerNorm's weight and bias are not one
    and zero, so that leaving them out would show.

    embeddings: word ``[V, H]``, position ``[P, H]``, token type ``[2, H]``, gamma ``[H]``, beta ``[H]``.
    head: weight ``[(1 + N) * C, H]``, bias ``[(1 + N) * C]``, lateral ``[N, N, C]``, top ``[N, C]``.
    """

    embeddings: tuple[Tensor, ...]
    head: tuple[Tensor, ...]

    def double(self) -> "Weights":
        return Weights(*(tuple(tensor.double() for tensor in tensors) for tensors in self))


class Tokens(NamedTuple):
    """The same rows in both layouts: packed ``[T]`` int32 with int64 offsets, padded ``[B, L]`` int64 with a mask."""

    packed: Tensor
    cu_seqlens: Tensor
    padded: Tensor
    attention_mask: Tensor


def make_weights(hidden_size: int, num_dendrites: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int, mean: float = 0.0, std: float = 0.02) -> Tensor:
        return torch.empty(shape).normal_(mean, std, generator=generator)

    units = (1 + num_dendrites) * NUM_LABELS
    return Weights(
        embeddings=(normal(VOCAB_SIZE, hidden_size), normal(MAX_POSITIONS, hidden_size), normal(2, hidden_size),
                    normal(hidden_size, mean=1.0, std=0.1), normal(hidden_size, std=0.1)),
        head=(normal(units, hidden_size), normal(units), normal(num_dendrites, num_dendrites, NUM_LABELS, std=1.0),
              normal(num_dendrites, NUM_LABELS, std=1.0)),
    )


def make_tokens(lengths: np.ndarray, vocab_size: int = VOCAB_SIZE) -> Tokens:
    """Rows of these lengths of Zipf-distributed ids: p(rank) ~ 1 / rank, with ranks shuffled over the vocabulary."""
    rng = np.random.default_rng(SEED)
    probabilities = 1 / np.arange(1, vocab_size + 1)
    ranked_ids = rng.permutation(vocab_size)
    packed = torch.from_numpy(rng.choice(ranked_ids, lengths.sum(), p=probabilities / probabilities.sum()))
    mask = torch.arange(int(lengths.max())) < torch.from_numpy(lengths)[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.int64)
    padded[mask] = packed
    offsets = torch.from_numpy(np.concatenate(([0], lengths.cumsum())))
    return Tokens(packed.int(), offsets, padded, mask.long())


def row_lengths(kind: str) -> np.ndarray:
    """Lengths of 1024 rows: "full" are 32 tokens each, "ragged" are 2 to 55 with a mean of 25, as in SST-2."""
    rows = 8 if SMALL else 1024
    if kind == "full":
        return np.full(rows, 32)
    return np.random.default_rng(SEED).normal(25, 9, rows).round().clip(2, 55).astype(np.int64)


def flush_caches() -> None:
    """Write through a buffer of four times the last-level cache, so that the next call finds its tables in DRAM."""
    buffer = _flush_buffer()
    buffer += 1


@cache
def _flush_buffer() -> np.ndarray:
    return np.zeros(last_level_cache_bytes() // 2)  # 8 bytes each


def last_level_cache_bytes() -> int:
    """Size of the last-level cache of the first core; 64 MiB if the system does not report it."""
    if SMALL:
        return 1 << 20
    path = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    return int(path.read_text().strip().rstrip("K")) * 1024 if path.exists() else 64 << 20


def shared_path(name: str) -> Path:
    """A file or folder of the shared data; skips the bench, with a reason, if it is not there."""
    root = Path(os.environ.get("DENDRITIC_BERT_DATA") or Path(__file__).resolve().parents[2] / "shared")
    if not (root / name).exists():
        pytest.skip(f"{name} is not in {root}: set DENDRITIC_BERT_DATA to the folder that holds it")
    return root / name


def sst2(split: str) -> tuple[list[str], list[int]]:
    """Texts and labels (0 negative, 1 positive) of SST-2's "train" or "dev"; the labels of "test" are empty."""
    path = shared_path(f"data/glue/SST-2/{split}.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"].strip() for row in rows], [int(row["label"]) for row in rows if "label" in row]


class Texts:
    """Short SST-2 sentences, with a mean of 25 tokens, each handed out once.

    ``seen`` are texts to warm a classifier up with; ``fresh`` returns texts that the cache of its tokenizer does not
    hold. They are the test sentences and the training phrases of at least 12 words, which are as long as a sentence;
    the dev sentences are kept for the accuracy.
    """

    def __init__(self) -> None:
        phrases = [text for text in sst2("train")[0] if len(text.split()) >= 12]
        pool = np.array(sorted({*phrases, *sst2("test")[0]}), dtype=object)
        np.random.default_rng(SEED).shuffle(pool)
        warm_up = 64 if SMALL else 3072
        self.seen: list[str] = pool[:warm_up].tolist()
        self._fresh: Iterator[str] = iter(pool[warm_up:].tolist())

    def fresh(self, count: int, words: int = 0) -> list[str]:
        """The next ``count`` texts; with ``words``, sentences are joined until each text has at least so many words."""
        return [self._joined(words) for _ in range(count)]

    def _joined(self, words: int) -> str:
        text = next(self._fresh)
        while len(text.split()) < words:
            text += " " + next(self._fresh)
        return text
