"""The bytes that ``dsn_window_logits`` reads and writes in Triton, and what its products take of a GPU's issue.

    python bench/analysis/window_traffic.py [--output bench/results]

Rows are full and padded ``[B, L]``, ids are int32, the mask is bool, types are all 0, and the values hold the head.
tests/interpreted/counted_bytes.py compares the model with what passes through Triton's interpreter. Instructions are
counted in the compiled kernels; nothing here is timed.
"""

import argparse
from math import ceil
from pathlib import Path

import torch
from compile_ahead import Resources, launches_compiled_for, resources
from launches import Call
from report import write
from traffic import Stream, Traffic, once

from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.configs import WindowConfig
from dendritic_bert.kernels.contract import padded_outputs
from dendritic_bert.training.markdown import markdown_table

TAPS = 3  # of a window of radius 1
TOKENS = 2**18  # per call
LENGTHS = (16, 25, 32, 64, 128, 150, 256, 512)
# Multiply-adds of one instruction of tensor cores: of a warp on sm_80, of a group of four warps on sm_90 (with 32
# columns), which a warp of each issues.
PRODUCTS = {"sm_80": ("HMMA.16816", 16 * 8 * 16), "sm_90": ("HGMMA", 64 * 32 * 16 // 4)}


def config_of(call: Call, target: str) -> WindowConfig:
    tile_sizes = (max(16, configs.power_of_2(size)) for size in (call.window_dendrites, width_of(call)))
    return configs.choose_windows(call.rows, call.length, call.num_tokens, *tile_sizes, halo_of(call), call.dtype,
                                  target)


def width_of(call: Call) -> int:
    return padded_outputs((1 + call.num_dendrites) * call.num_labels)


def halo_of(call: Call) -> int:
    return 2**call.window_layers - 1


def tiles_of(call: Call, config: WindowConfig) -> list[int]:
    """Of each tile of a row, the number of columns that it reads."""
    if call.length <= config.columns:
        return [call.length]
    halo = halo_of(call)
    step = config.tokens - 2 * halo
    starts = range(-halo, call.length - halo, step)
    return [min(call.length, start + config.tokens) - max(0, start) for start in starts]


def window_traffic_of(call: Call, config: WindowConfig) -> Traffic:
    """The traffic of a call. Columns in the halo of a tile are read twice, except their values."""
    rows, tokens, tiles = call.rows, call.num_tokens, tiles_of(call, config)
    width, m, layers = width_of(call), call.window_dendrites, call.window_layers
    read, programs = rows * sum(tiles), ceil(rows / config.rows)
    tap_rows, least_tap_rows = rows * sum(TAPS * tile - 2 for tile in tiles), rows * (TAPS * call.length - 2)
    labels, dendrites = call.num_labels, call.num_dendrites
    units = (1 + dendrites) * labels
    streams = [
        Stream("input_ids", "once", 4 * read, 4 * tokens, 4 * tokens),
        Stream("attention_mask", "once", read, tokens, tokens),
        Stream("taps", "words", 4 * m * tap_rows, 4 * m * least_tap_rows, 4 * m * least_tap_rows),
        Stream("gate", "words", 4 * read, 4 * tokens, 4 * tokens),
        Stream("values", "words", 4 * width * tokens, 4 * width * tokens, 4 * width * tokens),
        once("logits", 4 * labels * rows)]
    if len(tiles) > 1:
        streams.append(once("splits", 4 * (width + m + 1) * rows * len(tiles), times=2, least=0))
    tile_programs = rows * len(tiles) if len(tiles) > 1 else programs
    for name, size, times in (
            ("window_bias", 4 * layers * m, tile_programs), ("gate_weight", 4 * m, tile_programs),
            ("window_weight", call.dtype.itemsize * (layers - 1) * TAPS * m * m, tile_programs),
            ("weight", 4 * units * m, programs), ("bias", 4 * units, programs),
            ("lateral", 4 * labels * dendrites * (dendrites - 1) // 2, programs),
            ("top", 4 * labels * dendrites, programs)):
        streams.append(Stream(name, "table", times * size, size, size))
    return Traffic(tuple(streams))


def share_of_products(kernel: Resources) -> tuple[float, float]:
    """Of the instructions in a layer's loop, those of tensor cores; and the multiply-adds of an instruction of it."""
    name, multiply_adds = PRODUCTS[kernel.target]
    loop = max(kernel.loops, key=lambda loop: loop.num_instructions)
    count = sum(count for opcode, count in loop.opcodes.items() if opcode.startswith(name))
    return count / loop.num_instructions, count * multiply_adds / loop.num_instructions


def bytes_table() -> str:
    lines = []
    for dtype in (torch.bfloat16, torch.float32):
        for length in LENGTHS:
            call = Call("dsn_window_logits", 32, dtype, TOKENS // length, length)
            config = config_of(call, "sm_90")
            traffic = window_traffic_of(call, config)
            ratio = traffic.moved / traffic.least
            lines.append([str(dtype).removeprefix("torch."), str(length), f"{config.rows} x {config.columns}",
                          str(len(tiles_of(call, config))), f"{traffic.least / call.num_tokens:.0f}",
                          f"{ratio:.3f}" if ratio <= 1.05 else f"**{ratio:.3f}**"])
    return markdown_table(["layers", "L", "tile", "tiles of a row", "least, bytes / token", "requested / least"], lines)


def instructions_table() -> str:
    lines = []
    for target in PRODUCTS:
        for dtype, length in ((torch.bfloat16, 32), (torch.float32, 32), (torch.bfloat16, 256)):
            call = Call("dsn_window_logits", 32, dtype, TOKENS // length, length)
            config = config_of(call, target)
            with launches_compiled_for(target) as compiled:
                call.launch(call.tensors())
            kernel = resources(compiled[0], target)
            loop = max(kernel.loops, key=lambda loop: loop.num_instructions).num_instructions
            total = kernel.num_warps * (kernel.instructions + (call.window_layers - 2) * loop) / config.tokens
            share, multiply_adds = share_of_products(kernel)
            lines.append([target, str(dtype).removeprefix("torch."), str(length), str(kernel.num_warps),
                          str(kernel.registers), str(kernel.spilled_bytes), f"{total:.0f}", f"{100 * share:.1f} %",
                          f"{multiply_adds:.0f}"])
    return markdown_table(["target", "layers", "L", "warps", "registers", "bytes spilled", "instructions / token",
                           "on tensor cores", "multiply-adds / instruction"], lines, num_text_columns=2)


def report() -> str:
    return "\n".join([
        "# The Triton kernel of dendrites on windows\n",
        "Written by `python bench/analysis/window_traffic.py`; computed from shapes and compiled instructions, "
        f"**nothing here was timed**. M = 32, J = 5, radius 1, two labels and two dendrites, {TOKENS:,} tokens per "
        "call, full rows, int32 ids, a bool mask.\n",
        "## Bytes\n",
        "The least is what the contract asks of any kernel: ids, mask, each token's taps, gate and values once, and "
        "the logits. Bold: more than 1.05 times the least. Rows longer than a tile are read again where tiles overlap, "
        "by 31 columns on each side; within a call these bytes are the last cache's, not memory's.\n", bytes_table(),
        "## Instructions\n",
        "Of a warp, all columns of the tiles in use, the loop over layers J - 1 times and everything else once. The "
        "share and the multiply-adds are those of the loop over layers: most of its instructions move tokens by "
        "shuffles and shared memory. In float32 a product is six of bfloat16. On sm_90 an instruction of a group of "
        "four warps counts once for each.\n", instructions_table()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = report()
    write(arguments.output / "windows_on_gpus.md", text)
    print(text)


if __name__ == "__main__":
    main()
