"""Calls of the Triton ops for compiling and counting: tensors of the right shapes, whose values nobody has written.

Large ones cost no memory, since none of their pages is ever touched where kernels are compiled and not run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from dendritic_bert.kernels.backends.triton import configs, launch_backward, launch_forward, launch_windows
from dendritic_bert.kernels.contract import ACTIVATIONS, POOLINGS, WordGrad, padded_outputs

VOCAB_SIZE = 30522
NUM_POSITIONS = 512
NUM_TYPES = 2
SEED = 7
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "dsn_logits": launch_forward.dsn_logits, "dsn_token_logits": launch_forward.dsn_token_logits,
    "embed_pool": launch_forward.embed_pool, "embed_pool_backward": launch_backward.embed_pool_backward,
    "dsn_window_logits": launch_windows.dsn_window_logits}


@dataclass(frozen=True)
class Call:
    """A call of an op on ``rows`` rows of ``length`` tokens, all of them valid; ids are int32, the mask is bool.

    layout: "padded" or "packed". dropout: of both kinds. word_grad, of ``embed_pool_backward``: "scattered" by atomics;
    "by id" or "sparse", in the order of ids with the contexts by atomics; or "sorted", with both in order.
    num_labels, num_dendrites: of the ops with a head. window_dendrites, window_layers: of ``dsn_window_logits``, whose
    windows have radius 1, whose values hold the head, and whose dtype is that of the layers.
    """

    op: str
    hidden_size: int
    dtype: torch.dtype
    rows: int
    length: int
    layout: str = "padded"
    dropout: float = 0.0
    word_grad: str = "scattered"
    num_labels: int = 2
    num_dendrites: int = 2
    window_dendrites: int = 32
    window_layers: int = 5

    def __str__(self) -> str:
        words = [self.op, str(self.dtype).removeprefix("torch."), f"H={self.hidden_size}",
                 f"{self.rows}x{self.length}", self.layout]
        words += [self.word_grad] * (self.op == "embed_pool_backward") + ["dropout"] * (self.dropout > 0)
        words += [f"M={self.window_dendrites}", f"J={self.window_layers}"] * (self.op == "dsn_window_logits")
        words += [f"C={self.num_labels}", f"N={self.num_dendrites}"] * ((self.num_labels, self.num_dendrites) != (2, 2))
        return " ".join(words)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Call":
        """``values`` are the fields, the dtype by its name in torch."""
        return cls(**(values | {"dtype": getattr(torch, values["dtype"])}))

    @property
    def num_tokens(self) -> int:
        return self.rows * self.length

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of the call by name, unwritten."""
        h, wide = self.hidden_size, torch.float32
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        if self.op != "dsn_window_logits":
            shapes["word"] = ((VOCAB_SIZE, h), self.dtype)
        if self.layout == "packed":
            shapes["input_ids"] = ((self.num_tokens,), torch.int32)
            shapes["cu_seqlens"] = ((self.rows + 1,), torch.int32)
        else:
            shapes["input_ids"] = ((self.rows, self.length), torch.int32)
            shapes["attention_mask"] = ((self.rows, self.length), torch.bool)
        if self.op.startswith("embed_pool"):
            shapes |= {"position": ((NUM_POSITIONS, h), self.dtype), "token_type": ((NUM_TYPES, h), self.dtype),
                       "ln_weight": ((h,), self.dtype), "ln_bias": ((h,), self.dtype), "seed": ((1,), torch.int64)}
            if self.op == "embed_pool_backward":
                shapes |= {"grad_pooled": ((self.rows, h), self.dtype), "pooled_hat": ((self.rows, h), wide),
                           "rstd": ((self.num_tokens,), wide)}
        else:
            labels, dendrites = self.num_labels, self.num_dendrites
            units = (1 + dendrites) * labels
            shapes |= {"bias": ((units,), wide), "lateral": ((dendrites, dendrites, labels), wide),
                       "top": ((dendrites, labels), wide)}
            if self.op == "dsn_window_logits":
                return _empty(shapes | self._window_shapes(units))
            shapes |= {"context": ((NUM_TYPES, NUM_POSITIONS, h), wide), "weight": ((units, h), wide),
                       "beta_bias": ((units,), wide)}
            if self.dtype in (torch.int8, torch.float8_e4m3fn):
                shapes["word_scale"] = ((VOCAB_SIZE,), wide)
        return _empty(shapes)

    def _window_shapes(self, units: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        m, layers, wide = self.window_dendrites, self.window_layers, torch.float32
        return {"values": ((NUM_TYPES, VOCAB_SIZE, padded_outputs(units)), wide),
                "gate": ((NUM_TYPES, VOCAB_SIZE), wide), "taps": ((NUM_TYPES, VOCAB_SIZE, 3, m), wide),
                "window_bias": ((layers, m), wide), "window_weight": ((max(0, layers - 1), 3, m, m), self.dtype),
                "gate_weight": ((m,), wide), "weight": ((units, m), wide)}

    def launch(self, tensors: dict[str, torch.Tensor]) -> Any:
        """Call the op with mean_masked, one token type and columns as positions."""
        t, implementation = tensors, IMPLEMENTATIONS[self.op]
        tokens = (t.get("attention_mask"), t.get("cu_seqlens"), None, None)
        pooling, eps = POOLINGS.index("mean_masked"), 1e-12
        if self.op.startswith("embed_pool"):
            embed = (t["input_ids"], t["word"], t["position"], t["token_type"], t["ln_weight"], t["ln_bias"], *tokens,
                     eps, pooling, self.dropout, self.dropout, t["seed"] if self.dropout else None)
            if self.op == "embed_pool":
                return implementation(*embed, WordGrad.NONE)
            in_cache = patch.object(configs, "adds_in_cache", lambda *_: self.word_grad == "scattered")
            with in_cache, _deterministic(self.word_grad == "sorted"):
                return implementation(t["grad_pooled"], t["pooled_hat"], t["rstd"], *embed,
                                      WordGrad.SPARSE if self.word_grad == "sparse" else WordGrad.DENSE)
        activation = list(ACTIVATIONS).index("sigmoid")
        if self.op == "dsn_window_logits":
            names = ("values", "gate", "taps", "window_bias", "window_weight", "gate_weight", "weight", "bias",
                     "lateral", "top")
            return implementation(t["input_ids"], *(t[name] for name in names), activation, *tokens[:3])
        prepared = (t["input_ids"], t["word"], t.get("word_scale"), t["context"], eps, t["weight"], t["bias"],
                    t["beta_bias"], t["lateral"], t["top"], activation, *tokens)
        return implementation(*prepared, pooling) if self.op == "dsn_logits" else implementation(*prepared)


def _empty(shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}


@contextmanager
def _deterministic(on: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
