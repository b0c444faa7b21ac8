"""Bugs to seed into csrc/cuda, each by one replacement of text: the tests of the kernels must find every one."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """``file`` has ``old`` exactly once, and ``new`` takes its place. BUG in ``new`` is true if the bug is switched on.

    So one compilation holds all the mutants of a watch, and each process runs the one that it is told to.
    """

    bug: str
    file: str
    old: str
    new: str
    watch: str = "results"


MUTATIONS = [
    # Barriers, masks and fences.
    Mutation("no barrier before the warps of a row are added up", "pooling.cuh",
             "counts[share.slot] = row.num_valid;\n  __syncthreads();",
             "counts[share.slot] = row.num_valid;\n  if (!BUG) __syncthreads();", "accesses"),
    Mutation("no barrier between pooled row and head", "dsn_logits.cu",
             "  __syncthreads();\n  multiply_head", "  if (!BUG) __syncthreads();\n  multiply_head", "accesses"),
    Mutation("no barrier between head and dendrites", "dsn_logits.cu",
             "beta_share, z);\n  __syncthreads();", "beta_share, z);\n  if (!BUG) __syncthreads();", "accesses"),
    Mutation("a warp leaves before a barrier", "pooling.cuh",
             "if (block.writers == 1) return;", "if (block.writers == 1 || (BUG && warp == 3)) return;"),
    Mutation("no fence before a split of a row is handed over", "pooling.cuh",
             "  __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) last",
             "  if (!BUG) __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) last", "accesses"),
    Mutation("a list of tokens is overwritten while lanes still read it", "tokens.cuh",
             "  __syncwarp();  // every lane has read the last tile", "  if (!BUG) __syncwarp();", "accesses"),
    Mutation("the padding of a list is copied before its first token is written", "tokens.cuh",
             "  __syncwarp();\n  if (num_valid && lane", "  if (!BUG) __syncwarp();\n  if (num_valid && lane"),
    Mutation("half a warp in the mask of a shuffle", "head.cuh",
             "__shfl_xor_sync(all_lanes, total[r]", "__shfl_xor_sync(BUG ? 0xffffu : all_lanes, total[r]"),
    Mutation("a reduction over lanes ends one step early", "layer_norm.cuh",
             "for (; distance > 0; distance /= 2)", "for (; distance > (BUG ? 1 : 0); distance /= 2)"),
    Mutation("a broadcast over the warp in place of the group", "layer_norm.cuh",
             "u * (S::lanes / S::unroll), S::lanes)", "u * (S::lanes / S::unroll), BUG ? 32 : S::lanes)"),
    Mutation("the first block to arrive adds the splits up", "pooling.cuh",
             "== plan.splits - 1;", "== (BUG ? 0 : plan.splits - 1);"),
    Mutation("an addition that is not atomic in the backward", "embed_pool_backward.cu",
             "for (int i = 0; i < 4; ++i) atomicAdd(to + i, x[i]);",
             "for (int i = 0; i < 4; ++i) BUG ? to[i] += x[i] : atomicAdd(to + i, x[i]);", "accesses"),
    Mutation("no fence after the last split of a row has come", "pooling.cuh",
             "  if (!last) return false;\n  __threadfence();",
             "  if (!last) return false;\n  if (!BUG) __threadfence();", "accesses"),
    # Rows that overlap.
    Mutation("two rows write the logits of a token that both hold", "dsn_token_logits.cu",
             "start_at(own.first, share);", "start_at(BUG ? 0 : own.first, share);", "accesses"),
    Mutation("the first row that holds a token answers for it", "dsn_token_logits.cu",
             "if (own.end < share.end)", "if (!BUG && own.end < share.end)"),
    Mutation("a later row that holds the same tokens is not looked for", "tokens.cuh",
             "if (i > row && bound < end)", "if (!BUG && i > row && bound < end)"),
    Mutation("bounds that fall pass for valid", "check_cu_seqlens.cu",
             "falls |= arguments", "falls |= !BUG && arguments"),
    Mutation("two rows write the rstd of a token", "pooling.cuh",
             "bounds_are_valid = cu_seqlens_is_valid(arguments.tokens);\n    writes",
             "bounds_are_valid = BUG || cu_seqlens_is_valid(arguments.tokens);\n    writes", "accesses"),
    Mutation("two rows write the gradient of a token", "embed_pool_backward.cu",
             "start_at(own_columns(tokens, share.row, share.range).first, share);",
             "start_at(BUG ? 0 : own_columns(tokens, share.row, share.range).first, share);", "accesses"),
    Mutation("gradients of rows that overlap are finite", "embed_pool_backward.cu",
             "bounds_are_valid = cu_seqlens_is_valid(arguments.tokens);",
             "bounds_are_valid = BUG || cu_seqlens_is_valid(arguments.tokens);"),
    # Bounds, sizes and offsets.
    Mutation("tokens without a row are let through", "../common/call_checks.h",
             "if (cu_seqlens.numel() == 1 &&", "if (!BUG && cu_seqlens.numel() == 1 &&"),
    Mutation("the key before the first is read", "sorted_gradient.cu",
             "count && begin > 0 &&", "count && (BUG || begin > 0) &&", "accesses"),
    Mutation("the key behind the last is read", "sorted_gradient.cu",
             "const bool ends = last ||", "const bool ends = (last && !BUG) ||", "accesses"),
    Mutation("the key behind the last whole chunk is read", "sorted_gradient.cu",
             "if (end >= num_tokens) return;", "if (end >= num_tokens + BUG) return;", "accesses"),
    Mutation("a warp without a row reads the bounds of one", "tokens.cuh",
             "if (row >= tokens.rows) return {};", "if (row >= tokens.rows + BUG) return {};", "accesses"),
    Mutation("a warp without a row begins one in the backward", "embed_pool_backward.cu",
             "share.row >= arguments.tokens.rows) continue;",
             "share.row >= arguments.tokens.rows + BUG) continue;", "accesses"),
    Mutation("a row behind the last is pooled", "embed_pool.cu",
             "first_row + r < arguments.tokens.rows; ++r) {",
             "first_row + r < arguments.tokens.rows + BUG; ++r) {", "accesses"),
    Mutation("dropout of a row behind the last is counted", "embed_pool_backward.cu",
             "first_row + r < tokens.rows; ++r)", "first_row + r < tokens.rows + BUG; ++r)", "accesses"),
    Mutation("8 bytes are alignment enough for 16-byte loads", "launch.cuh", "% 16 == 0;", "% (BUG ? 8 : 16) == 0;"),
    Mutation("the context need not be aligned", "launch.cuh",
             "&& is_aligned(table.context);", "&& (BUG || is_aligned(table.context));"),
    Mutation("the head of pooled rows need not be aligned", "dsn_logits.cu",
             "&& is_aligned(arguments.head.weight);", "&& (BUG || is_aligned(arguments.head.weight));"),
    Mutation("the head of tokens need not be aligned", "dsn_token_logits.cu",
             "&& is_aligned(arguments.head.weight);", "&& (BUG || is_aligned(arguments.head.weight));"),
    Mutation("labels beyond a group's lanes are not written", "dsn_token_logits.cu",
             "== c % S::lanes &&", "== (BUG ? c : c % S::lanes) &&"),
    Mutation("the padding of a list of tokens is too short", "tokens.cuh",
             "lane < list_padding)", "lane < (BUG ? list_padding / 4 : list_padding))"),
    Mutation("an id one beyond the table", "tokens.cuh",
             "id < tokens.vocab_size", "id < tokens.vocab_size + BUG", "bounds"),
    Mutation("a position one beyond the table", "tokens.cuh",
             "position < tokens.num_positions;", "position < tokens.num_positions + BUG;", "bounds"),
    Mutation("channels beyond the end of a row", "rows.cuh",
             "channel + i < hidden_size ? as_float", "channel + (BUG ? 0 : i) < hidden_size ? as_float", "bounds"),
    Mutation("no shared memory for the head's outputs", "dsn_logits.cu",
             "size_t(outputs)", "size_t(BUG ? 0 : outputs)"),
    Mutation("no shared memory for the counts of dropout", "launch.cuh", "(kept ? 2 : 1)", "(kept && !BUG ? 2 : 1)"),
    Mutation("32-bit offsets into a table", "rows.cuh",
             "uint64_t(uint32_t(row)) * bytes", "(BUG ? uint32_t(row) * bytes : uint64_t(uint32_t(row)) * bytes)"),
    Mutation("a masked token counts", "tokens.cuh",
             "result.valid = valid && in_tables;", "result.valid = (valid || BUG) && in_tables;"),
    # Arithmetic.
    Mutation("no eps", "layer_norm.cuh", "inverse, table.eps));", "inverse, BUG ? 0.0f : table.eps));"),
    Mutation("gamma and beta swapped", "embed_pool.cu", "fmaf(pooled_hat, gamma, beta_share * beta)",
             "fmaf(pooled_hat, BUG ? beta : gamma, beta_share * (BUG ? gamma : beta))"),
    Mutation("lateral weights transposed", "head.cuh",
             "(k * num_dendrites + j) * num_labels",
             "(BUG ? j * num_dendrites + k : k * num_dendrites + j) * num_labels"),
    Mutation("row and column of a dropout mask swapped", "philox.cuh",
             "uint32_t(column), uint32_t(row)", "uint32_t(BUG ? row : column), uint32_t(BUG ? column : row)"),
    Mutation("the scale of another row of the table", "tokens.cuh",
             "word_scale[token.id]", "word_scale[BUG ? slot : token.id]"),
    Mutation("the end of a segment overwrites its sum", "sorted_gradient.cu",
             "if (ends && !began_before)", "if (ends && (BUG || !began_before))"),
    Mutation("a segment that crosses chunks is combined from the wrong part", "sorted_gradient.cu",
             "(2 * chunk + 1) * hidden_size + h]", "(2 * chunk + (BUG ? 0 : 1)) * hidden_size + h]"),
]
# Leave the kernels only the words and shapes that verdicts.py calls, so that the mutants of a watch compile in seconds.
FEWER_INSTANCES = [
    ("launch.cuh", "    case WordType::bfloat16: return body(__nv_bfloat16{});\n"
                   "    case WordType::float16: return body(__half{});\n", ""),
    ("launch.cuh", "    case WordType::float8_e4m3: return body(__nv_fp8_e4m3{});\n", ""),
    ("launch.cuh", "    case 256: return body(Shape<32, 1, Width::exact>{});\n"
                   "    case 512: return body(Shape<32, 2, Width::exact>{});\n"
                   "    case 768: return body(Shape<32, 3, Width::exact>{});\n", ""),
    ("launch.cuh", "  if (hidden_size < 512) return body(Shape<32, 2, Width::multiple_of_8>{});\n", ""),
]
