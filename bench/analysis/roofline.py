"""How fast each Triton and each CUDA kernel can be, and what holds it: computed, not timed.

    python bench/analysis/roofline.py [--output bench/results]

Bytes are those of ``traffic`` and ``cuda_traffic``, which tests compare with what the kernels do under Triton's
interpreter and, for CUDA, on a CPU. Instructions are counted in the kernels that ``compile_ahead`` compiled and in the
built extension, without which the CUDA kernels are left out. A call takes as long as the slowest of three: memory, the
last cache, and the issue of instructions (Williams et al. 2009, "Roofline"; Ding and Williams 2019, "An instruction
roofline model for GPUs"). The model leaves out launches, latency, which dominates below some 20,000 tokens, and
whatever else keeps a kernel from its bound.
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import torch
from compile_ahead import Resources, launches_compiled_for, resources
from cuda_resources import Kernel, extension_path, kernels_of
from cuda_traffic import BLOCK_WARPS, cuda_traffic_of, plan_of
from devices import DEVICES, Device, hit_rate
from launches import NUM_POSITIONS, VOCAB_SIZE, Call
from report import scaled, write
from traffic import Traffic, cached_bytes, once, sort_bytes, splits_of, torch_bytes, traffic_of

from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.backward import MASK_TOKENS
from dendritic_bert.kernels.backends.triton.configs import KEY_TOKENS, SEGMENT_CHUNK, Config
from dendritic_bert.kernels.backends.triton.launch_forward import block_c
from dendritic_bert.training.markdown import markdown_table

TOKENS = 2**18  # per call: 64 times what a GPU has in flight
OPS = {"dsn_logits": (torch.float32, torch.bfloat16, torch.int8),
       "dsn_token_logits": (torch.float32, torch.bfloat16, torch.int8), "embed_pool": (torch.float32, torch.bfloat16),
       "embed_pool_backward": (torch.float32, torch.bfloat16)}
# The ops whose bytes and gathering loops are counted in CUDA too, and their kernels there.
CUDA_KERNELS = {"dsn_logits": "dsn_logits_kernel", "embed_pool": "embed_pool_kernel",
                "embed_pool_backward": "token_gradients_kernel"}
ORDERED_FORMS = ("by id", "sorted")  # of the backward pass
HIDDEN_SIZES = (128, 384, 768)
LENGTHS = (32, 128, 512)
MOVED_AT_MOST = 1.05


@dataclass(frozen=True)
class Bound:
    """The seconds that memory, cache and issue take for a call on a device. ``ids``: how its ids are distributed."""

    call: Call
    device: Device
    ids: str
    memory_bytes: float
    cache_bytes: float
    instructions: float
    backend: str = "Triton"

    @property
    def seconds(self) -> dict[str, float]:
        return {"memory": self.memory_bytes / self.device.memory_rate,
                "cache": self.cache_bytes / self.device.cache_rate, "issue": self.instructions / self.device.issue_rate}

    @property
    def limit(self) -> str:
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def tokens_per_second(self) -> float:
        return self.call.num_tokens / max(self.seconds.values())


def calls() -> list[Call]:
    return [Call(op, hidden_size, dtype, TOKENS // length, length) for op, dtypes in OPS.items() for dtype in dtypes
            for hidden_size, length in itertools.product(HIDDEN_SIZES, LENGTHS)]


def config_of(call: Call, target: str) -> Config:
    rows, length = (call.num_tokens, 1) if call.op == "dsn_token_logits" else (call.rows, call.length)
    key = configs.key_of(call.op, call.hidden_size, length, rows, call.dtype, target)
    return configs.choose_backward(key) if call.op == "embed_pool_backward" else configs.choose(key)


def instructions_of(call: Call, config: Config, kernels: Iterable[Resources]) -> float:
    """Instructions of warps (waves) in a call: the gathering loop once per iteration, the rest of a kernel once."""
    kernels = list(kernels)
    turns_of = _turns if call.word_grad == "scattered" else _ordered_turns
    total = 0
    for kernel, (programs, turns) in zip(kernels, turns_of(call, config, [kernel.kernel for kernel in kernels])):
        loop = kernel.gather_loop.num_instructions
        total += kernel.num_warps * programs * (kernel.instructions - loop + turns * loop)
    return float(total)


def _turns(call: Call, config: Config, names: list[str]) -> Iterator[tuple[int, int]]:
    """Of each launch, the number of programs and the iterations of one program's loop."""
    splits = splits_of(call, config)
    for name in names:
        programs, turns = ceil(call.rows / config.rows), ceil(call.length / config.tokens)
        if name == "dsn_token_logits_kernel":  # its loop goes over labels
            tile = config.rows * config.tokens
            programs = ceil(call.num_tokens / tile)
            turns = ceil(call.num_labels / block_c(call.num_labels, call.num_dendrites, tile, call.hidden_size, config))
        elif name.endswith("_splits_kernel") or (name == "scatter_gradients_kernel" and splits > 1):
            programs, turns = call.rows * splits, ceil(turns / splits)
        elif name.endswith("_combine_kernel"):
            turns = splits
        yield programs, turns


def _ordered_turns(call: Call, config: Config, names: list[str]) -> Iterator[tuple[int, int]]:
    """The same of the ordered forms: one pass by id, each of which has equally many tokens, and one by position in the
    sorted form; one token per iteration."""
    segments = iter([(VOCAB_SIZE, ceil(call.num_tokens / VOCAB_SIZE)), (NUM_POSITIONS, SEGMENT_CHUNK)])
    for name in names:
        if name == "row_gradients_kernel":
            yield ceil(call.rows / config.rows), ceil(call.length / MASK_TOKENS.value)
        elif name in ("token_keys_kernel", "order_tokens_kernel"):
            yield ceil(call.num_tokens / KEY_TOKENS), 1
        elif name == "segment_gradients_kernel":
            num_segments, tokens = next(segments)
            yield num_segments + call.num_tokens // SEGMENT_CHUNK, min(tokens, SEGMENT_CHUNK)
        else:
            yield ceil(call.num_tokens / SEGMENT_CHUNK), 1


def cuda_instructions_of(call: Call, kernels: Iterable[Kernel]) -> float:
    """The same for the CUDA kernel of ``call`` among ``kernels``: the gathering loop as often as it iterates, the loop
    around it once for each list of tokens, the rest once. The sums of contexts, some per cent, are left out."""
    plan = plan_of(call)
    name = (CUDA_KERNELS[call.op], str(call.dtype).removeprefix("torch."), plan.shape,
            "exact" if call.hidden_size == 8 * plan.lanes * plan.vectors else "multiple of 8")
    (work,) = (kernel.work for kernel in kernels if (kernel.kernel, kernel.word, kernel.shape, kernel.width) == name)
    if work is None:
        raise RuntimeError(f"{' '.join(name)} has no loop that gathers: nvcc makes something else of it.")
    warps = ceil(call.rows / plan.block_rows) * BLOCK_WARPS * plan.splits
    lists = call.rows * len(list(plan.lists(call.length)))
    steps = call.rows * plan.gathered(call.length) / plan.step
    return warps * work.once + lists * work.each_list + steps * work.each_step


def memory_bytes(call: Call, device: Device, ids: str, traffic: Traffic) -> float:
    """Bytes from and to memory if a warm cache holds words and their sums as often as LRU does. Sums that stay in it
    are written back once, which is counted where they are cleared."""
    row_bytes = call.hidden_size * (call.dtype.itemsize + 4 * (traffic.total("sums") > 0))
    missed = 1 - hit_rate(ids, VOCAB_SIZE, row_bytes, device.cache_bytes)
    return traffic.moved - (1 - missed) * (traffic.total("words") + 2 * traffic.total("sums"))


def bound_of(call: Call, device: Device, ids: str, traffic: Traffic, instructions: float,
             backend: str = "Triton") -> Bound:
    return Bound(call, device, ids, memory_bytes(call, device, ids, traffic),
                 cached_bytes(traffic, device.first_cache_bytes), instructions, backend)


@cache
def cuda_kernels(target: str) -> list[Kernel]:
    """The kernels of the built extension, if there is one. It takes ten seconds to disassemble."""
    extension = extension_path()
    return list(kernels_of(extension, (target,))) if extension else []


@cache
def ordered_traffic(call: Call, target: str) -> Traffic:
    """The traffic of a backward call in an ordered form, with that of torch's sorts and sums."""
    with torch_bytes(target) as of_torch:
        call.launch(call.tensors())
    return Traffic((*traffic_of(call, config_of(call, target)).streams, once("torch", of_torch.total, least=0)))


def triton_instructions(call: Call, target: str) -> float:
    with launches_compiled_for(target) as compiled:
        call.launch(call.tensors())
    return instructions_of(call, config_of(call, target), [resources(kernel, target) for kernel in compiled])


def work_of(call: Call, target: str, cuda: list[Kernel]) -> list[tuple[str, Traffic, float]]:
    """The name of every backend with the bytes and the instructions of a call."""
    work = [("Triton", traffic_of(call, config_of(call, target)), triton_instructions(call, target))]
    if call.op == "embed_pool_backward":
        for word_grad in ORDERED_FORMS:
            form = replace(call, word_grad=word_grad)
            work.append((f"Triton, {word_grad}", ordered_traffic(form, target), triton_instructions(form, target)))
    if cuda and call.op in CUDA_KERNELS:
        work.append(("CUDA", cuda_traffic_of(call), cuda_instructions_of(call, cuda)))
    return work


def bounds() -> list[Bound]:
    found = []
    for target in dict.fromkeys(device.target for device in DEVICES):
        cuda = cuda_kernels(target)
        for call in calls():
            found += [bound_of(call, device, ids, traffic, instructions, backend)
                      for backend, traffic, instructions in work_of(call, target, cuda) for device in DEVICES
                      if device.target == target for ids in ("uniform", "zipf")]
    return found


def bounds_on(name: str, call: Call) -> dict[str, Bound]:
    """Backend -> the bound of a call with Zipf-distributed ids on the known device whose name occurs in ``name``;
    nothing if there is none."""
    device = next((device for device in DEVICES if device.name in name), None)
    if device is None:
        return {}
    return {backend: bound_of(call, device, "zipf", traffic, instructions, backend)
            for backend, traffic, instructions in work_of(call, device.target, cuda_kernels(device.target))}


def moved_table() -> str:
    """The bytes of every forward call in CUDA, and in Triton as configured for an NVIDIA GPU, beside the least."""
    lines = []
    for call in calls():
        if call.op == "embed_pool_backward":
            continue
        of_triton = traffic_of(call, config_of(call, "sm_90"))
        moved = [of_triton.moved, *([cuda_traffic_of(call).moved] if call.op in CUDA_KERNELS else [])]
        missing = ["-"] * (2 - len(moved))
        lines.append([*_named(call), f"{of_triton.least / call.num_tokens:.1f}",
                      *(f"{size / call.num_tokens:.1f}" for size in moved), *missing,
                      *(_marked(size / of_triton.least) for size in moved), *missing])
    return markdown_table(["op", "table", "H", "L", "least, bytes / token", "Triton moves", "CUDA moves",
                           "Triton / least", "CUDA / least"], lines, num_text_columns=2)


def _marked(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio <= MOVED_AT_MOST else f"**{ratio:.3f}**"


def moved_scattered(call: Call, device: Device, traffic: Traffic) -> float:
    """Bytes from and to memory of a backward call by atomics that starts with a cold cache, which therefore reads the
    row of every word at least once."""
    moved = memory_bytes(call, device, "uniform", traffic)
    missed = moved - memory_bytes(call, replace(device, cache_bytes=2**62), "uniform", traffic)
    return moved + max(0.0, traffic.total("words", "distinct") - missed)


def moved_backward(call: Call, device: Device, form: str) -> float:
    """Bytes from and to memory of a backward call with uniform ids, in one of the report's forms."""
    if form in ORDERED_FORMS:
        call = replace(call, word_grad=form)
        return memory_bytes(call, device, "uniform", ordered_traffic(call, device.target))
    traffic = cuda_traffic_of(call) if form == "CUDA" else traffic_of(call, config_of(call, device.target))
    return moved_scattered(call, device, traffic)


def backward_table() -> str:
    lines = []
    devices = [device for device in DEVICES if device.name != "H200"]  # which has an H100's cache
    forms = [(device, form) for device in devices for form in ("atomics", "CUDA", *ORDERED_FORMS)
             if form != "CUDA" or device.target.startswith("sm_")]
    for call in (call for call in calls() if call.op == "embed_pool_backward"):
        least = traffic_of(call, config_of(call, "sm_90")).least
        moved = [moved_backward(call, device, form) for device, form in forms]
        lines.append([*_named(call)[1:], f"{least / call.num_tokens:.1f}",
                      *(_marked(size / least) for size in moved)])
    return markdown_table(
        ["table", "H", "L", "least, bytes / token", *(f"{device.name}, {form}" for device, form in forms)], lines)


def device_table(device: Device, found: list[Bound]) -> str:
    lines = []
    here = [bound for bound in found if bound.device == device]
    for uniform, zipf in zip(here[::2], here[1::2]):
        call, seconds = uniform.call, uniform.seconds
        rates = [call.num_tokens / value for value in (seconds["memory"], zipf.seconds["memory"], seconds["cache"],
                                                       seconds["issue"])]
        op, dtype, *sizes = _named(call)
        lines.append([op, dtype, uniform.backend, *sizes, f"{uniform.cache_bytes / call.num_tokens:.0f}",
                      f"{uniform.instructions / call.num_tokens:.0f}", *(scaled(rate, "") for rate in rates),
                      f"{scaled(uniform.tokens_per_second, '')}, {uniform.limit}",
                      f"{scaled(zipf.tokens_per_second, '')}, {zipf.limit}"])
    header = ["op", "table", "kernels", "H", "L", "cache, bytes / token", "instructions / token", "memory, uniform ids",
              "memory, Zipf", "cache", "issue", "bound, uniform ids", "bound, Zipf"]
    return f"## {device.name}\n\n" + markdown_table(header, lines, num_text_columns=3)


def _named(call: Call) -> list[str]:
    return [call.op, str(call.dtype).removeprefix("torch."), str(call.hidden_size), str(call.length)]


def report(found: list[Bound]) -> str:
    parts = [
        "# Rooflines of the Triton and the CUDA kernels\n",
        "Written by `python bench/analysis/roofline.py`; computed from shapes and compiled instructions, "
        "**nothing here was timed**. The tables give the tokens per second that a GPU's memory, last cache (L2; on "
        f"MI300X the Infinity Cache) and issue of instructions allow, for {TOKENS:,} tokens per call, "
        f"V = {VOCAB_SIZE}, full rows, int32 ids, a bool mask, {Call.num_labels} labels and {Call.num_dendrites} "
        "dendrites. Caches are warm and hold words as Che's approximation of LRU predicts. The embed_pool ops run "
        "without dropout. The backward pass adds everything by atomics, or words \"by id\" and the rest by atomics, or "
        "everything \"sorted\"; the bytes of the last two include those of torch's own operations, the instructions do "
        "not. Instructions are those of a warp of 32 (NVIDIA) or a wave of 64 (AMD). Those outside the gathering loop "
        "are counted once, executed or not, which for short rows makes issue a lower bound, above all because of "
        "unrolled epilogues.\n",
        "![rooflines](roofline.png)\n", "## Bytes\n",
        "Bytes from and to memory if no word's row is reused and tables of positions and heads are read once. The "
        "least is what the contract of the op asks of any kernel. Bold: more than "
        f"{MOVED_AT_MOST:g} times the least.\n", moved_table(), "## Bytes of the backward pass\n",
        "A gradient has one row per word however often that occurs, so here words and their gradients are reused as "
        "far as the last cache, cold at first, holds them, for uniform ids. The least reads every word's row once, "
        "writes every gradient once and keeps nothing in between. H200 is as H100. \"atomics\" (Triton) and \"CUDA\" "
        "add float32 rows in the cache. They move the least where words and sums fit there together and the table is "
        "float32. Beside a bfloat16 table the float32 sums are twice as large as the gradient, and where the cache "
        "misses, the sum of every token is read and written. \"by id\" reads each word once and has no float32 "
        "sums. It is Triton's sparse form, and its dense one except where atomics move the least. Beyond the least it "
        "moves the "
        "order, a cell of 4 bytes per token, 0.5 bytes of offsets and, for bfloat16 tables, the float32 sums of "
        "positions. For bfloat16 and H = 128 the cell alone exceeds 5 % of the least, which is 71 to 93 bytes. An "
        f"order of {TOKENS:,} tokens needs at least 16.6 bits per token, 2.1 bytes, so no way of ordering them leaves "
        "much room there. What one kernel hands to the next and what many tokens read, 4 to 29 MB per call, is taken "
        "to stay in the cache: words and their gradients, which pass through once, are marked to be evicted first. "
        f"\"sorted\" (the deterministic form) has two sorts of {sort_bytes(2)} bytes per token, and gathers words "
        "again in its second pass.\n",
        backward_table(), *(device_table(device, found) for device in DEVICES)]
    return "\n".join(parts)


def plot(found: list[Bound], path: Path) -> None:
    """One panel per device: warp instructions per byte against warp instructions per second, for cache and memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    for axes, device in zip(figure.subplots(2, 2).flat, DEVICES):
        _panel(axes, device, [bound for bound in found if bound.device == device and bound.ids == "uniform"
                              and bound.call.length == 128])
    figure.suptitle("L = 128, H = 128, 384, 768, uniform ids; each kernel at the bound of its slowest part: Triton's "
                    "filled, CUDA's hollow; computed")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axes: Any, device: Device, found: list[Bound]) -> None:
    intensities = [10 ** (exponent / 20) for exponent in range(-36, 11)]
    for name, rate, style in (("memory", device.memory_rate, "-"), ("cache", device.cache_rate, "--")):
        axes.plot(intensities, [min(device.issue_rate, rate * x) for x in intensities], style, color="grey",
                  label=f"{name}, {rate / 1e12:.1f} TB/s")
    markers = dict(zip(OPS, "oDsv"))
    for index, dtype in enumerate((torch.float32, torch.bfloat16, torch.int8)):
        for op, marker in markers.items():
            for backend, face in (("Triton", f"C{index}"), ("CUDA", "none")):
                chosen = [bound for bound in found
                          if (bound.call.op, bound.call.dtype, bound.backend) == (op, dtype, backend)]
                if chosen:
                    axes.plot([bound.instructions / bound.cache_bytes for bound in chosen],
                              [bound.instructions / max(bound.seconds.values()) for bound in chosen], marker,
                              color=f"C{index}", markerfacecolor=face, alpha=0.8,
                              label=f"{op}, {str(dtype).removeprefix('torch.')}" if backend == "Triton" else None)
    axes.set(xscale="log", yscale="log", title=f"{device.name}: {device.issue_rate / 1e9:.0f} G instructions / s",
             xlabel="instructions of a warp / byte from the last cache", ylabel="instructions of a warp / s")
    axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = bounds()
    text = report(found)
    write(arguments.output / "roofline.md", text)
    plot(found, arguments.output / "roofline.png")
    print(text)


if __name__ == "__main__":
    main()
