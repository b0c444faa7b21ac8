"""The teacher of a pretraining: any sentence encoder that transformers loads, pooled as its folder says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

from ..model.files import fingerprint
from ..training.inference_workers import infer_texts, round_weights
from ..training.teacher import loading_teacher, num_positions

POOLING_FILE = Path("1_Pooling", "config.json")  # of sentence-transformers
MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


class SentenceEncoder:
    """Texts -> embeddings of length 1, from a model of transformers.

    max_length: tokens to which a text is cut. dimension: D. digest: tells this teacher with these settings from any
    other.

    Args:
        name: a folder or a hub id.
        pooling: "mean", "cls", or "folder": what ``read_pooling`` finds.
        max_length: tokens to which a text is cut, where the model and its tokenizer do not read fewer.
        bf16: whether matrix products are in bfloat16.

    Raises OSError if it cannot be loaded, ValueError for a pooling that is neither mean nor cls.
    """

    def __init__(self, name: str, pooling: str = "folder", max_length: int = 128, bf16: bool = False) -> None:
        self.name, self.bf16 = name, bf16
        self.pooling = read_pooling(name) if pooling == "folder" else pooling
        with loading_teacher(name):
            # "eager" is 7 % faster here than "sdpa": texts are short, and those of a batch about equally long.
            self.model: Any = AutoModel.from_pretrained(name, dtype=torch.float32, attn_implementation="eager").eval()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self.max_length = int(min(max_length, self.tokenizer.model_max_length, num_positions(self.model)))
        if bf16:
            round_weights(self.model)
        self.dimension: int = self.model.config.hidden_size
        key = json.dumps([fingerprint(name), self.pooling, self.max_length, bf16])
        self.digest = hashlib.sha256(key.encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """``[n, D]`` float32, each row of length 1; an empty text has that of the special tokens."""
        embeddings = np.empty((len(texts), self.dimension), np.float32)

        def embed(rows: Any) -> np.ndarray:
            hidden = self.model(**rows).last_hidden_state
            return F.normalize(self._pool(hidden.float(), rows["attention_mask"]), dim=1).numpy()

        for indices, found in infer_texts(embed, self.tokenizer, texts, self.max_length, self.bf16):
            embeddings[indices] = found
        return embeddings

    def _pool(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if self.pooling == "cls":
            return hidden[:, 0]
        is_valid = attention_mask[..., None].float()
        return (hidden * is_valid).sum(dim=1) / is_valid.sum(dim=1).clamp(min=1e-9)


def read_pooling(name: str) -> str:
    """ "mean" or "cls", as ``1_Pooling/config.json`` of sentence-transformers in a folder or on the hub says; "mean"
    where there is no such file.

    Raises ValueError for another pooling.
    """
    from transformers.utils import cached_file

    found = cached_file(name, str(POOLING_FILE), _raise_exceptions_for_missing_entries=False,
                        _raise_exceptions_for_connection_errors=False)
    if found is None:
        return "mean"
    settings = json.loads(Path(found).read_text(encoding="utf-8"))
    if "pooling_mode" in settings:  # as sentence-transformers has written it since its version 5
        modes = [settings["pooling_mode"]]
    else:
        modes = [mode for mode, is_used in settings.items() if mode.startswith("pooling_mode_") and is_used is True]
    pooling = MODES.get(modes[0], modes[0]) if len(modes) == 1 else " and ".join(modes)
    if pooling not in MODES.values():
        raise ValueError(f"teacher {name} pools by {pooling or 'nothing'}, which is not known here: pass "
                         "teacher_pooling=\"mean\" or \"cls\".")
    return pooling
