"""Bugs to be seeded into csrc/cuda, each one replacement of text: the kernels' tests must find every one."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """``old`` stands in ``file`` exactly once; ``watch`` is what the mutant is compiled with."""

    bug: str
    file: str
    old: str
    new: str
    watch: str = "results"


MUTATIONS = [
    # Barriers, masks and fences.
    Mutation("no barrier before the warps of a row are added up", "forward.cuh",
             "counts[share.slot] = row.count;\n  __syncthreads();\n", "counts[share.slot] = row.count;\n", "races"),
    Mutation("no barrier between pooled row and head", "forward.cuh",
             "  __syncthreads();\n  head_products", "  head_products", "races"),
    Mutation("no barrier between head and cascade", "forward.cuh",
             "beta_share, z);\n  __syncthreads();\n", "beta_share, z);\n", "races"),
    Mutation("a warp leaves before a barrier", "forward.cuh",
             "if (block.writers == 1) return;", "if (block.writers == 1 || warp == 3) return;"),
    Mutation("no fence before a split of a row is handed over", "forward.cuh",
             "  __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) last",
             "  __syncthreads();\n  if (threadIdx.x == 0) last", "races"),
    Mutation("a list of tokens is overwritten while lanes still read it", "tokens.cuh",
             "  __syncwarp();  // the last tile has been read\n", "", "races"),
    Mutation("the padding of a list is copied before its first token is written", "tokens.cuh",
             "  __syncwarp();\n  if (count && lane < list_padding) {", "  if (count && lane < list_padding) {"),
    Mutation("half a warp in the mask of a shuffle", "head.cuh",
             "__shfl_xor_sync(all_lanes, total[r], distance)", "__shfl_xor_sync(0xffffu, total[r], distance)"),
    Mutation("a reduction over lanes ends one step early", "rows.cuh",
             "for (; distance > 0; distance /= 2)", "for (; distance > 1; distance /= 2)"),
    Mutation("a broadcast over the warp in place of the group", "rows.cuh",
             "u * (S::lanes / S::unroll), S::lanes)", "u * (S::lanes / S::unroll))"),
    Mutation("the first block to arrive adds the splits up", "forward.cuh",
             "== plan.splits - 1;", "== 0;"),
    Mutation("an addition that is not atomic in the backward", "backward.cuh",
             "for (int i = 0; i < 4; ++i) atomicAdd(to + i, x[i]);", "for (int i = 0; i < 4; ++i) to[i] += x[i];",
             "races"),
    # Bounds, sizes and offsets.
    Mutation("the padding of a list of tokens is too short", "tokens.cuh",
             "lane < list_padding)", "lane < list_padding / 4)"),
    Mutation("an id one beyond the table", "tokens.cuh", "id < tokens.vocab_size", "id <= tokens.vocab_size", "bounds"),
    Mutation("a position one beyond the table", "tokens.cuh",
             "position < tokens.num_positions;", "position <= tokens.num_positions;", "bounds"),
    Mutation("channels beyond the end of a row", "rows.cuh",
             "channel + i < hidden_size ? as_float", "channel < hidden_size ? as_float", "bounds"),
    Mutation("no shared memory for the head's outputs", "logits.cu", "size_t(outputs)", "0"),
    Mutation("no shared memory for the counts of dropout", "launch.cuh", "(kept ? 2 : 1)", "1"),
    Mutation("32-bit offsets into a table", "rows.cuh",
             "uint64_t(uint32_t(row)) * bytes", "uint32_t(row) * bytes"),
    Mutation("a masked token counts", "tokens.cuh", "result.kept = kept && fits;", "result.kept = fits;"),
    # Arithmetic.
    Mutation("no eps", "forward.cuh", "inverse, table.eps));", "inverse, 0.0f));"),
    Mutation("gamma and beta swapped", "forward.cuh",
             "fmaf(hat, gamma, share * beta)", "fmaf(hat, beta, share * gamma)"),
    Mutation("lateral weights transposed", "head.cuh", "(k * dendrites + j) * labels", "(j * dendrites + k) * labels"),
    Mutation("row and column of a dropout mask swapped", "philox.cuh",
             "uint32_t(column), uint32_t(row)", "uint32_t(row), uint32_t(column)"),
    Mutation("the scale of another row of the table", "tokens.cuh", "word_scale[token.id]", "word_scale[slot]"),
    Mutation("the end of a run of ids overwrites its sum", "backward.cuh", "if (ends && !from_before)", "if (ends)"),
    Mutation("a run of ids that crosses chunks is joined from the wrong part", "backward.cuh",
             "(2 * chunk + 1) * hidden_size + h]", "(2 * chunk) * hidden_size + h]"),
]
# Fewer instances of the kernels, each one's words and shapes being those that verdicts.py calls: a mutant compiles in
# seconds.
FEWER_INSTANCES = [
    ("launch.cuh", "    case WordType::bfloat16: return body(__nv_bfloat16{});\n"
                   "    case WordType::float16: return body(__half{});\n", ""),
    ("launch.cuh", "    case WordType::float8_e4m3: return body(__nv_fp8_e4m3{});\n", ""),
    ("launch.cuh", "    case 256: return body(Shape<32, 1, Width::exact>{});\n"
                   "    case 512: return body(Shape<32, 2, Width::exact>{});\n"
                   "    case 768: return body(Shape<32, 3, Width::exact>{});\n", ""),
    ("launch.cuh", "  if (hidden_size < 512) return body(Shape<32, 2, Width::multiple_of_8>{});\n", ""),
]
