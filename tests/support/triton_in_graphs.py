"""What torch.compile sees of the Triton ops, on a machine without a GPU; run by Triton's test_forward.py.

    python triton_in_graphs.py

It traces every op on tensors that claim to lie on a GPU. For every launch in the graph it prints those arguments of the
kernel that torch knows to be written, and it prints the ops of ours that the graph calls as they are.
"""

from typing import Any
from unittest.mock import patch

import torch
from cases import head, parameters, tokens
from torch._functorch.aot_autograd import aot_function
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from window_workload import prepared as prepare_windowed
from window_workload import window_head, window_parameters

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.contract import DsnHead, DsnTable, WindowedDsn, WordGrad
from dendritic_bert.kernels.prepare import prepare_head, prepare_table


class AbsentDevice:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def launches(function: Any, *arguments: Any) -> list[Any]:
    """The written arguments of each launch, and the name of each op of ours, in the order of the graph."""
    found: list[Any] = []

    def compiler(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        for node in graph.graph.nodes:
            if "triton_kernel_wrapper" in str(node.target):
                found.append(sorted(node.kwargs["tensors_to_clone"]))
            elif str(node.target).startswith("dendritic_bert."):
                found.append(str(node.target).split(".")[1])
        return graph

    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):
        inputs = [None if value is None else torch.empty(value.shape, dtype=value.dtype, device="cuda")
                  for value in arguments]
        aot_function(function, fw_compiler=compiler, bw_compiler=compiler)(*inputs)
    return found


def main() -> None:
    values, batch = parameters(128, num_positions=600), tokens("padded", 4, 6)
    table = prepare_table(*list(values.values())[:3], dtype=torch.int8)
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(128, 3, 1))
    inputs = [*batch.values(), *table[:3], *dsn_head[:5]]

    def logits(op: str, second: str = "attention_mask") -> Any:
        def call(ids: Any, given: Any, *prepared: Any) -> Any:
            return getattr(ops, op)(ids, DsnTable(*prepared[:3], 1e-12), DsnHead(*prepared[3:], "tanh"),
                                    backend="triton", **{second: given})
        return call

    def embed_pool(ids: Any, mask: Any, *parameters: Any) -> Any:
        return ops.embed_pool(ids, *parameters, attention_mask=mask, backend="triton")

    def gradients(word_grad: int) -> Any:
        def call(grad: Any, pooled_hat: Any, rstd: Any, ids: Any, mask: Any, *parameters: Any) -> Any:
            return torch.ops.dendritic_bert.embed_pool_backward_triton(
                grad, pooled_hat, rstd, ids, *parameters, mask, None, None, None, 1e-12, 0, 0.0, 0.0, None, word_grad)
        return call

    def window_logits(second: str) -> Any:
        def call(ids: Any, given: Any, *prepared: Any) -> Any:
            return ops.dsn_window_logits(ids, WindowedDsn(*prepared, "tanh"), backend="triton", **{second: given})
        return call

    window_values = window_parameters(dendrites=32, layers=5)
    windowed = prepare_windowed(window_values, window_head(window_values))[:-1]

    with patch.object(driver, "_active", AbsentDevice()):
        print("dsn_logits", *launches(logits("dsn_logits"), *inputs))
        long = [*tokens("padded", 4, 600).values(), *inputs[2:]]
        print("dsn_logits of long rows", *launches(logits("dsn_logits"), *long))
        print("dsn_token_logits", *launches(logits("dsn_token_logits"), *inputs))
        for rows in (4, 300):
            packed = tokens("packed int32", rows, 6).values()
            print(f"dsn_token_logits of {rows} packed rows",
                  *launches(logits("dsn_token_logits", "cu_seqlens"), *packed, *inputs[2:]))
        for words, rows in (("", tokens("padded", 4, 25)), (" of long rows", tokens("padded", 4, 600))):
            print(f"dsn_window_logits{words}", *launches(window_logits("attention_mask"), *rows.values(), *windowed))
        many = tokens("packed int32", configs.FEW_ROWS + 1, 6).values()
        print("dsn_window_logits of many packed rows", *launches(window_logits("cu_seqlens"), *many, *windowed))
        print("embed_pool", *launches(embed_pool, *batch.values(), *values.values()))
        print("embed_pool of long rows", *launches(embed_pool, *long[:2], *values.values()))
        saved = [torch.empty(4, 128), torch.empty(4, 128), torch.empty(4 * 6), *batch.values(), *values.values()]
        print("gradients", *launches(gradients(WordGrad.DENSE), *saved))
        with patch.object(configs, "adds_in_cache", lambda *_: False):
            print("gradients by id", *launches(gradients(WordGrad.DENSE), *saved))
        print("sparse gradients", *launches(gradients(WordGrad.SPARSE), *saved))
        torch.use_deterministic_algorithms(True)
        print("deterministic gradients", *launches(gradients(WordGrad.DENSE), *saved))


if __name__ == "__main__":
    main()
