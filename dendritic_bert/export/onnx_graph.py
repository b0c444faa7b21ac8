"""A Dendritic Semantic Network (DSN) as an ONNX graph of standard operators, written node by node.

The graph computes the formulas of ``kernels.reference``, the window layers as dilated convolutions. It has some 40
nodes, or 60 with five window layers, whatever the size of the model; torch's own exporter makes as many, but needs
onnxscript and seconds. It stays at opset 17, which onnxruntime has read since 1.12.

    inputs   input_ids, attention_mask and, unless left out, token_type_ids      int64 [rows, length]
    output   logits                                                              float32 [rows, C]
             or start_logits and end_logits                                      float32 [rows, length]
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.contract import GATE_LIMIT
from ..model.dendritic_linear import DendriticLinear
from .tables import ExportTables

OPSET = 17
IR_VERSION = 8  # that of onnx 1.12, which brought opset 17
LARGEST_FILE = 2**31 - 2**20  # bytes; protobuf writes no message of 2 GiB
# The modules between the layers of a head that the graph can spell out -> their names in _activate.
_HIDDEN = {"ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "GELUActivation": "gelu", "GELU": "gelu",
           "SiLUActivation": "silu", "SiLU": "silu"}


def write_onnx(tables: ExportTables, path: Path, metadata: dict[str, str]) -> None:
    """Write the graph to ``path``, with ``metadata`` as its metadata_props.

    Raises ImportError without onnx, and ValueError for an activation between the layers of the head that is not among
    those above, or for tables of 2 GB.
    """
    onnx = require("onnx")
    size = tables.word.nbytes + tables.context.nbytes
    if size > LARGEST_FILE:
        raise ValueError(f"the tables take {size / 1e9:.1f} GB, an ONNX file holds 2: pass --dtype int8, or --format "
                         "torch.")
    graph = _Graph(onnx)
    logits = _logits(graph, tables)
    model = onnx.helper.make_model(
        graph.finish(logits, tables), producer_name="dendritic-bert", ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def run_onnx(path: Path, batches: list[dict[str, Tensor]]) -> list[Tensor] | None:
    """The outputs of the file for every batch, by onnxruntime; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    results = []
    for batch in batches:
        outputs = session.run(None, {name: values.numpy() for name, values in batch.items()})
        results.append(torch.from_numpy(outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)))
    return results


def require(name: str) -> Any:
    """Import a package of the extra ``export``; raises ImportError that says how to get it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"exporting to ONNX needs {name}, which is not installed: pip install "
                          "'dendritic-bert[export]'.") from error


class _Graph:
    """The nodes and constants of a graph under way; a value is its name."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return the name of its output, or the names if there are several ``outputs``."""
        names = [name or f"{operator.lower()}_{len(self.nodes)}"]
        if outputs > 1:
            names = [f"{names[0]}_{number}" for number in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, names, **attributes))
        return names if outputs > 1 else names[0]

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """Add a constant under this name, unless there is one already."""
        if not any(constant.name == name for constant in self.constants):
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype)
            self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def to_float(self, value: str) -> str:
        return self.add("Cast", value, to=self.onnx.TensorProto.FLOAT)

    def finish(self, logits: str, tables: ExportTables) -> Any:
        """The graph with its inputs and outputs."""
        info, types = self.onnx.helper.make_tensor_value_info, self.onnx.TensorProto
        names = ["input_ids", "attention_mask"] + (["token_type_ids"] if tables.has_types else [])
        inputs = [info(name, types.INT64, ["rows", "length"]) for name in names]
        if tables.pooling is not None:
            self.add("Identity", logits, name="logits")
            outputs = [info("logits", types.FLOAT, ["rows", _num_labels(tables)])]
        else:
            last = self.constant("last_axis", [-1], np.int64)
            outputs = []
            for name, part in zip(("start_logits", "end_logits"), self.add("Split", logits, outputs=2, axis=-1)):
                self.add("Squeeze", part, last, name=name)
                outputs.append(info(name, types.FLOAT, ["rows", "length"]))
        return self.onnx.helper.make_graph(self.nodes, "dendritic_bert", inputs, outputs, self.constants)


def _num_labels(tables: ExportTables) -> int:
    last: Any = tables.head[-1]
    return last.out_features


def _logits(graph: _Graph, tables: ExportTables) -> str:
    """The logits, ``[rows, C]`` or ``[rows, length, 2]``."""
    # Whatever stands in padding is neither looked up nor added, but for the poolings that count padding.
    is_masked = tables.pooling in (None, "mean_masked", "gated_mean")
    valid = graph.add("Cast", "attention_mask", name="is_valid", to=graph.onnx.TensorProto.BOOL)
    ids = _selected(graph, "input_ids", valid if is_masked else None)
    x = _x(graph, tables, ids, valid if is_masked else None)
    if tables.pooling is not None:
        x = _pool(graph, tables, x, ids, valid)
    for number, module in enumerate(tables.head):
        x = _linear(graph, x, module, ["", "", "second_"][number]) if isinstance(module, DendriticLinear) else _hidden(
            graph, x, module)
    return x if tables.pooling is not None else _where(graph, valid, x)


def _selected(graph: _Graph, indices: str, valid: str | None) -> str:
    """The indices with 0 where a token is not valid; None means that all are."""
    return indices if valid is None else graph.add("Where", valid, indices, graph.constant("zero", 0, np.int64))


def _where(graph: _Graph, valid: str, x: str) -> str:
    """``x [rows, length, channels]`` with 0 where a token is not valid, whatever stands there."""
    of_tokens = graph.add("Unsqueeze", valid, graph.constant("last_axis", [-1], np.int64))
    return graph.add("Where", of_tokens, x, graph.constant("zero_float", 0, np.float32))


def _x(graph: _Graph, tables: ExportTables, ids: str, valid: str | None) -> str:
    """The embedding of every token, ``[rows, length, H]``, after LayerNorm where there is one."""
    words = graph.add("Gather", graph.constant("word_embeddings", tables.word), ids)
    if tables.word.dtype != torch.float32:
        words = graph.to_float(words)
    if tables.word_scale is not None:
        scale = graph.constant("word_scale", tables.word_scale[:, None])
        words = graph.add("Mul", words, graph.add("Gather", scale, ids))
    x = graph.add("Add", words, _context(graph, tables, valid), name="embeddings")
    if tables.norm is None:
        return x
    weight, bias, eps = tables.norm
    return graph.add("LayerNormalization", x, graph.constant("norm_weight", weight),
                     graph.constant("norm_bias", bias), axis=-1, epsilon=eps)


def _context(graph: _Graph, tables: ExportTables, valid: str | None) -> str:
    """The context of every token, ``[rows, length, H]``, or of all, ``[H]``."""
    types = _selected(graph, "token_type_ids", valid) if tables.has_types else None
    if not tables.has_positions:
        rows = tables.context[:, 0]
        return (graph.constant("context", rows[0]) if types is None else
                graph.add("Gather", graph.constant("context", rows), types))
    shape, zero, one = (graph.add("Shape", "input_ids"), graph.constant("zero", 0, np.int64),
                        graph.constant("one", 1, np.int64))
    positions = graph.add("Range", zero, graph.add("Gather", shape, one), one, name="positions")
    positions = _selected(graph, graph.add("Expand", positions, shape), valid)
    if types is None:
        return graph.add("Gather", graph.constant("context", tables.context[0]), positions)
    # A pair of indices each, so that one out of range is an error, not the next type's row.
    last = graph.constant("last_axis", [-1], np.int64)
    places = [graph.add("Unsqueeze", indices, last) for indices in (types, positions)]
    return graph.add("GatherND", graph.constant("context", tables.context), graph.add("Concat", *places, axis=-1))


def _pool(graph: _Graph, tables: ExportTables, x: str, ids: str, valid: str) -> str:
    """The pooled rows, ``[rows, H]``, or with windows ``[rows, H + M]``."""
    if tables.pooling == "mean_all":
        return graph.add("ReduceMean", x, axes=[1], keepdims=0)
    columns = graph.constant("columns", [1], np.int64)
    if tables.pooling == "sum_all":
        return graph.add("ReduceSum", x, columns, keepdims=0)
    h = x = _where(graph, valid, x)
    if tables.windows is not None:
        h = graph.add("Concat", x, _windows(graph, tables.windows, x), axis=-1)
    if tables.gate is None:
        count = graph.add("ReduceSum", graph.to_float(valid), columns, keepdims=1)
    else:
        weight, word_bias = tables.gate
        gates = graph.add("Add", graph.add("MatMul", h, graph.constant("gate_weight", weight[:, None])),
                          graph.add("Gather", graph.constant("gate_word_bias", word_bias[:, None]), ids))
        limits = [graph.constant(name, limit, np.float32) for name, limit in (
            ("lowest_gate", -GATE_LIMIT), ("highest_gate", GATE_LIMIT))]
        gates = _where(graph, valid, graph.add("Exp", graph.add("Clip", gates, *limits)))
        h = graph.add("Mul", gates, h)
        count = graph.add("Squeeze", graph.add("ReduceSum", gates, columns, keepdims=1), columns)
    total = graph.add("ReduceSum", h, columns, keepdims=0)
    # The gates of a row that is not empty sum to exp(-8) at least.
    least = graph.constant("least", math.exp(-GATE_LIMIT) / 2, np.float32)
    return graph.add("Div", total, graph.add("Max", count, least), name="pooled")


def _windows(graph: _Graph, windows: tuple[Tensor, Tensor, Tensor], x: str) -> str:
    """u of the last window layer, ``[rows, length, M]``, 0 where a token is not valid, as ``x`` is."""
    input_weight, weight, bias = windows
    # Behind each row stands a column of padding, since onnxruntime has no convolution of none.
    columns = graph.constant("columns", [1], np.int64)
    x = graph.add("Pad", x, graph.constant("a_column_of_x", [0, 0, 0, 0, 1, 0], np.int64))
    mask = graph.add("Pad", "attention_mask", graph.constant("a_column", [0, 0, 0, 1], np.int64))
    is_valid = graph.add("Unsqueeze", graph.add("Cast", mask, to=graph.onnx.TensorProto.BOOL), columns)
    u = graph.add("Transpose", x, perm=[0, 2, 1])
    for layer, layer_bias in enumerate(bias):
        taps = input_weight if layer == 0 else weight[layer - 1]  # [R, in, out]
        pad = len(taps) // 2 * 2**layer
        step = graph.add("Relu", graph.add(
            "Conv", u, graph.constant(f"window_weight_{layer}", taps.permute(2, 1, 0).contiguous()),
            graph.constant(f"window_bias_{layer}", layer_bias), dilations=[2**layer], pads=[pad, pad]))
        u = graph.add("Where", is_valid, step if layer == 0 else graph.add("Add", u, step),
                      graph.constant("zero_float", 0, np.float32))
    u = graph.add("Transpose", u, perm=[0, 2, 1])
    last = graph.constant("last_axis", [-1], np.int64)
    return graph.add("Slice", u, graph.constant("first_column", [0], np.int64), last, columns, name="windows")


def _linear(graph: _Graph, x: str, layer: DendriticLinear, prefix: str) -> str:
    """A layer of the head; the constants of the second have a prefix."""
    layers = graph.add("MatMul", x, graph.constant(f"{prefix}weight", layer.weight.T.contiguous()))
    layers = graph.add("Add", layers, graph.constant(f"{prefix}bias", layer.bias))
    return _cascade(graph, prefix, layers, layer.lateral, layer.top, layer.activation)


def _cascade(graph: _Graph, prefix: str, layers: str, lateral: Tensor | None, top: Tensor | None,
             activation: str) -> str:
    """The cascade of dendrites, as ``dendritic_cascade_ref`` has it: ``[..., (1 + N) * C]`` -> ``[..., C]``."""
    if top is None or lateral is None or not top.shape[0]:
        return layers
    logits, *parts = graph.add("Split", layers, name=f"{prefix}layers", outputs=1 + top.shape[0], axis=-1)
    outputs: list[str] = []
    for k, z in enumerate(parts):
        for j, output in enumerate(outputs):
            weight = graph.constant(f"{prefix}lateral_{k}_{j}", lateral[k, j])
            z = graph.add("Add", z, graph.add("Mul", output, weight))
        outputs.append(_activate(graph, z, activation))
    for k, output in enumerate(outputs):
        logits = graph.add("Add", logits, graph.add("Mul", output, graph.constant(f"{prefix}top_{k}", top[k])))
    return logits


def _hidden(graph: _Graph, x: str, module: nn.Module) -> str:
    """The activation between the two layers of a head."""
    name = type(module).__name__
    if name not in _HIDDEN:
        raise ValueError(f"hidden_act is a {name}, which the ONNX graph does not spell out: pass --format torch.")
    return _activate(graph, x, _HIDDEN[name])


def _activate(graph: _Graph, x: str, activation: str) -> str:
    if activation == "gelu":  # x / 2 * (1 + erf(x / sqrt 2)); ONNX has an operator of its own from opset 20 on
        root = graph.constant("root_of_half", 0.5**0.5, np.float32)
        share = graph.add("Add", graph.add("Erf", graph.add("Mul", x, root)),
                          graph.constant("one_float", 1, np.float32))
        return graph.add("Mul", graph.add("Mul", x, graph.constant("half", 0.5, np.float32)), share)
    if activation == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    return graph.add(activation.capitalize(), x)  # Sigmoid, Tanh, Relu
