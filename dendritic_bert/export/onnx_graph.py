"""A Dendritic Semantic Network (DSN) as an ONNX graph of standard operators, written node by node.

The graph computes what ``kernels.reference.dsn_logits_ref`` does, with LayerNorm's mean and its gamma and beta folded
away. It has some 40 nodes whatever the size of the model; torch's own exporter makes as many, but needs onnxscript and
seconds. It stays at opset 17, which onnxruntime has read since 1.12.

    inputs   input_ids, attention_mask and, unless left out, token_type_ids      int64 [rows, length]
    output   logits                                                              float32 [rows, C]
             or start_logits and end_logits                                      float32 [rows, length]
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    size = sum(value.nbytes for value in tables.table if isinstance(value, Tensor))
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
    last = tables.rest[-1] if len(tables.rest) else None
    return last.out_features if isinstance(last, DendriticLinear) else tables.head.top.shape[1]


def _logits(graph: _Graph, tables: ExportTables) -> str:
    """The logits, ``[rows, C]`` or ``[rows, length, 2]``."""
    head = tables.head
    # Whatever stands in padding is neither looked up nor added, but for the poolings that count padding.
    is_masked = tables.pooling in (None, "mean_masked")
    valid = graph.add("Cast", "attention_mask", name="is_valid", to=graph.onnx.TensorProto.BOOL)
    x_hat = _x_hat(graph, tables, valid if is_masked else None)
    last = graph.constant("last_axis", [-1], np.int64)
    beta_bias = graph.constant("beta_bias", head.beta_bias)
    if tables.pooling is None:
        pooled = x_hat
    else:
        pooled, share = _pool(graph, tables.pooling, x_hat, valid)
        beta_bias = graph.add("Mul", share, beta_bias)
    layers = graph.add("MatMul", pooled, graph.constant("weight", head.weight.T))
    layers = graph.add("Add", graph.add("Add", layers, graph.constant("bias", head.bias)), beta_bias)
    logits = _cascade(graph, "", layers, head.lateral, head.top, head.activation)
    for module in tables.rest:
        logits = _linear(graph, logits, module) if isinstance(module, DendriticLinear) else _hidden(
            graph, logits, module)
    if tables.pooling is None:
        logits = graph.add("Where", graph.add("Unsqueeze", valid, last), logits,
                           graph.constant("zero_float", 0, np.float32))
    return logits


def _x_hat(graph: _Graph, tables: ExportTables, valid: str | None) -> str:
    """LayerNorm's output before gamma and beta, ``[rows, length, H]``; the tables are centred, so its mean is 0."""
    table = tables.table
    zero, one = graph.constant("zero", 0, np.int64), graph.constant("one", 1, np.int64)

    def selected(indices: str) -> str:
        return indices if valid is None else graph.add("Where", valid, indices, zero)

    ids = selected("input_ids")
    words = graph.add("Gather", graph.constant("word_embeddings", table.word), ids)
    if table.word.dtype != torch.float32:
        words = graph.to_float(words)
    if table.word_scale is not None:
        words = graph.add("Mul", words, graph.add("Gather", graph.constant("word_scale", table.word_scale[:, None]),
                                                  ids))
    shape = graph.add("Shape", "input_ids")
    positions = graph.add("Range", zero, graph.add("Gather", shape, one), one, name="positions")
    positions = selected(graph.add("Expand", positions, shape))
    if tables.has_types:  # a pair of indices each, so that one out of range is an error, not the next type's row
        last = graph.constant("last_axis", [-1], np.int64)
        places = [graph.add("Unsqueeze", indices, last) for indices in (selected("token_type_ids"), positions)]
        context = graph.add("GatherND", graph.constant("context", table.context),
                            graph.add("Concat", *places, axis=-1))
    else:
        context = graph.add("Gather", graph.constant("context", table.context[0]), positions)
    e = graph.add("Add", words, context)
    variance = graph.add("ReduceMean", graph.add("Mul", e, e), axes=[-1], keepdims=1)
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.constant("eps", table.eps, np.float32)))
    return graph.add("Div", e, deviation, name="x_hat")


def _pool(graph: _Graph, pooling: str, x_hat: str, valid: str) -> tuple[str, str]:
    """The pooled rows ``[rows, H]``, and the share of beta in them ``[rows, 1]`` or ``[]``."""
    columns, one = graph.constant("columns", [1], np.int64), graph.constant("one_float", 1, np.float32)
    if pooling == "mean_masked":
        last = graph.constant("last_axis", [-1], np.int64)
        zero = graph.constant("zero_float", 0, np.float32)
        x_hat = graph.add("Where", graph.add("Unsqueeze", valid, last), x_hat, zero)
        count = graph.add("ReduceSum", graph.to_float(valid), columns, keepdims=1)
    else:
        length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.constant("one", 1, np.int64))
        count = graph.to_float(length)
    total = graph.add("ReduceSum", x_hat, columns, keepdims=0)
    if pooling == "sum_all":
        return total, count
    return graph.add("Div", total, graph.add("Max", count, one), name="pooled"), graph.add("Min", count, one)


def _linear(graph: _Graph, x: str, layer: DendriticLinear) -> str:
    """The second layer of a head."""
    layers = graph.add("MatMul", x, graph.constant("second_weight", layer.weight.T))
    layers = graph.add("Add", layers, graph.constant("second_bias", layer.bias))
    return _cascade(graph, "second_", layers, layer.lateral, layer.top, layer.activation)


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
