"""The ways in which mutate_triton.py breaks the Triton kernels, and the tests that each is run against."""

import re
from dataclasses import dataclass

FORWARD, BACKWARD, OUTSIDE = "interpreted/forward.py", "interpreted/backward.py", "interpreted/properties.py"
WINDOWS = "interpreted/windows.py"
PROPERTIES = "kernels/ops/test_properties.py"
# The tests that each mutant is run against. The quickest come first, the large samples of cases last.
TESTS = {
    "dsn_logits": [f"{FORWARD}::test_no_token_at_all", f"{FORWARD}::test_only_the_lower_triangle_of_lateral_is_read",
                   f"{FORWARD}::test_activations_at_their_ends", f"{FORWARD}::test_invalid_bounds_of_rows",
                   f"{OUTSIDE}::test_a_row_that_ends_just_behind_the_batch", f"{PROPERTIES}::test_a_token_of_zeros",
                   f"{OUTSIDE}::test_an_index_just_outside_a_table_is_nan", f"{FORWARD}::test_every_configuration",
                   f"{FORWARD}::test_the_scale_of_a_bad_id_is_not_read",
                   f"{FORWARD}::test_offsets_beyond_two_to_the_31", f"{FORWARD}::test_rows_in_splits",
                   f"{FORWARD}::test_a_bad_index_makes_its_row_alone_nan", f"{FORWARD}::test_logits"],
    "dsn_token_logits": [f"{FORWARD}::test_no_token_at_all", f"{PROPERTIES}::test_a_token_of_zeros",
                         f"{OUTSIDE}::test_an_index_just_outside_a_table_is_nan",
                         f"{FORWARD}::test_every_configuration", f"{FORWARD}::test_offsets_beyond_two_to_the_31",
                         f"{FORWARD}::test_a_token_belongs_to_the_one_row_that_holds_it",
                         f"{FORWARD}::test_the_scale_of_a_bad_id_is_not_read",
                         f"{FORWARD}::test_a_bad_index_makes_its_row_alone_nan",
                         f"{FORWARD}::test_a_row_longer_than_the_position_table", f"{FORWARD}::test_token_logits"],
    "embed_pool": [f"{FORWARD}::test_no_token_at_all", f"{PROPERTIES}::test_a_token_of_zeros",
                   f"{OUTSIDE}::test_an_index_just_outside_a_table_is_nan",
                   f"{FORWARD}::test_invalid_bounds_of_rows", f"{FORWARD}::test_every_configuration",
                   f"{FORWARD}::test_a_bad_index_makes_its_row_alone_nan", f"{FORWARD}::test_rows_in_splits",
                   f"{FORWARD}::test_embed_pool",
                   f"{BACKWARD}::test_offsets_beyond_two_to_the_31", f"{BACKWARD}::test_every_configuration"],
    "bounds": [f"{FORWARD}::test_bounds_that_decrease_anywhere",
               f"{FORWARD}::test_a_token_belongs_to_the_one_row_that_holds_it",
               f"{BACKWARD}::test_invalid_bounds_leave_no_gradient"],
    "splits": [f"{FORWARD}::test_invalid_bounds_of_rows", f"{FORWARD}::test_rows_in_splits",
               f"{FORWARD}::test_no_token_at_all", f"{FORWARD}::test_every_configuration",
               f"{BACKWARD}::test_every_configuration[Config(rows=1, tokens=4, num_warps=4, "
               "num_stages=1, split_columns=4, "
               "head_tile=1024)-sorted]"],
    "gradients": [f"{BACKWARD}::test_tokens_that_are_not_valid_have_no_gradient",
                  f"{BACKWARD}::test_the_sparse_gradient_is_the_dense_one",
                  f"{BACKWARD}::test_invalid_bounds_leave_no_gradient",
                  f"{BACKWARD}::test_a_row_that_is_counted_in_two_steps",
                  f"{BACKWARD}::test_gradient_of_pooled_in_any_layout", f"{BACKWARD}::test_a_bad_index_has_no_gradient",
                  f"{BACKWARD}::test_a_bad_id_has_no_row_in_the_sparse_gradient",
                  f"{BACKWARD}::test_every_configuration", f"{BACKWARD}::test_an_id_in_several_chunks",
                  f"{BACKWARD}::test_offsets_beyond_two_to_the_31", f"{BACKWARD}::test_gradients"],
    "windows": [f"{WINDOWS}::test_the_gate_is_clipped", f"{WINDOWS}::test_only_what_belongs_to_the_head_is_read",
                f"{WINDOWS}::test_a_row_that_ends_just_behind_the_batch",
                f"{WINDOWS}::test_invalid_bounds_of_rows", f"{WINDOWS}::test_what_the_mask_hides_is_not_looked_at",
                f"{WINDOWS}::test_a_bad_index_makes_its_row_alone_nan",
                f"{WINDOWS}::test_rows_at_the_ends_of_tiles", f"{WINDOWS}::test_offsets_beyond_two_to_the_31",
                f"{WINDOWS}::test_logits"],
}


@dataclass(frozen=True)
class Mutant:
    """The first occurrence of ``old`` in the named function becomes ``new``; ``kernel`` is then run under its tests."""

    kernel: str
    what: str
    function: str
    old: str
    new: str

    @property
    def tests(self) -> list[str]:
        if self.kernel.startswith("window"):
            return TESTS["windows"]
        if self.kernel.endswith(("_splits_kernel", "_combine_kernel")) and not self.kernel.startswith("segment"):
            return TESTS["splits"]
        for prefix, tests in (("dsn_token_logits", "dsn_token_logits"), ("embed_pool", "embed_pool"),
                              ("bounds", "bounds")):
            if self.kernel.startswith(prefix):
                return TESTS[tests]
        return TESTS["dsn_logits" if self.kernel.startswith("dsn") else "gradients"]

    def apply(self, source: str) -> str:
        """The text of the file that defines the function, broken."""
        start = source.index(f"\ndef {self.function}(")
        end = re.compile(r"\n@(triton\.jit|kernel)").search(source, start)
        body = source[start:end.start() if end else len(source)]
        if self.old not in body:
            raise ValueError(f"{self.kernel}, {self.what}: {self.old!r} is no longer in {self.function}.")
        return source[:start] + body.replace(self.old, self.new, 1) + source[start + len(body):]


def of(kernel: str, *changes: tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(kernel, what, function, old, new) for what, function, old, new in changes]


# Functions that several kernels share are broken once for each of these kernels, under its own tests.
MASK_DROPPED = ("the mask is not looked at", "is_valid", "mask=valid, other=0) != 0)", "mask=valid, other=0) > -9)")
ONE_COLUMN_TOO_FEW = ("the last column of a row is left out", "is_valid", "column < end", "column < end - 1")
ONE_COLUMN_TOO_MANY = ("a column behind the row is taken in", "is_valid", "column < end", "column <= end")
INT32_OFFSET = ("an offset into the word table in int32", "load_token_indices", "other=0).to(tl.int64)",
                "other=0).to(tl.int32)")
WRONG_POSITION = ("every position is one less", "load_context_indices", "position = column\n",
                  "position = column - 1\n")
NO_TYPES = ("token types are not read", "load_context_indices",
            "token_type = tl.load(token_type_ids + place, mask=valid, "
            "other=0).to(tl.int64)", "token_type = column * 0")
LARGE_ID = ("an id one past the table is read", "load_token_indices", "token_id < vocab_size", "token_id <= vocab_size")
LARGE_POSITION = ("a position one past the table is read", "load_context_indices", "position < num_positions",
                  "position <= num_positions")
NEGATIVE_ID = ("a negative id is read", "load_token_indices", "(token_id >= 0)", "(token_id >= -1)")
START_OF_ROW = ("a packed row starts with the row before", "load_row_bounds", "tl.load(cu_seqlens + row, mask",
                "tl.load(cu_seqlens + row - (row > 0), mask")
PACKED_BOUNDS = ("rows may end behind the batch", "load_row_bounds", "(end <= num_tokens)", "(end <= num_tokens + 1)")
NO_EPS = ("eps is left out", "load_centred_tokens", "/ HIDDEN_SIZE + eps)", "/ HIDDEN_SIZE)")
BLOCK_FOR_SIZE = ("the variance is over the padded size", "load_centred_tokens", "axis=2) / HIDDEN_SIZE",
                  "axis=2) / BLOCK_H")
NO_SCALE = ("the scale of an int8 row is left out", "load_centred_tokens", "if word_scale is not None", "if False")
CONTEXT_OF_TYPE = ("types are as far apart as tokens", "load_centred_tokens", "token_type * num_positions",
                   "token_type")
NO_NAN = ("a bad index is no NaN", "load_centred_tokens", 'tl.where(inside, rstd, float("nan"))', "rstd")
# Only memory_checker finds these: lanes that lie outside a tensor, where nothing depends on what they read.
MASK_UNMASKED = ("the mask is read behind its end", "is_valid", "attention_mask + place, mask=valid, other=0)",
                 "attention_mask + place)")
IDS_UNMASKED = ("ids are read behind their end", "load_token_indices", "input_ids + place, mask=valid, other=0)",
                "input_ids + place)")
SCALE_UNMASKED = ("the scale of a bad id is read", "load_centred_tokens",
                  "word_scale + token_id, mask=read, other=0.0)",
                  "word_scale + token_id)")
TOP_UNMASKED = ("top is read behind its end", "add_dendrite", "top + k * NUM_LABELS + c, mask=known, other=0.0)",
                "top + k * NUM_LABELS + c)")
BIAS_UNMASKED = ("the bias is read behind its end", "apply_layer", "bias + first + c, mask=known, other=0.0)",
                 "bias + first + c)")
BOUNDS_UNMASKED = ("bounds of rows are read behind their end", "load_row_bounds",
                   "cu_seqlens + row + 1, mask=inside, other=0)", "cu_seqlens + row + 1)")
LOGITS_UNMASKED = ("logits of rows behind the last are written", "store_logits", "mask=stored[:, None] & known",
                   "mask=(row >= 0)[:, None] & known")
GAMMA_UNMASKED = ("gamma is read behind its end", "store_pooled", "ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0)",
                  "ln_weight + h)")
OVERLAPPING_RSTD = ("rows that overlap write one rstd", "pool_embedded", "column < stored_end", "column < end")
LAST_STEP_ALONE = ("sums start anew in every step", "pool_centred", "total += e", "total = e")
COUNT_OF_LAST_STEP = ("tokens of the last step alone are counted", "pool_centred", "num_valid += valid",
                      "num_valid = valid")
DIVIDED_BY_TWO = ("a row of one token is halved", "divide", "tl.maximum(num_valid, 1)", "tl.maximum(num_valid, 2)")
EMPTY_ROW_HAS_BETA = ("an empty row gets beta", "divide", "tl.where(num_valid > 0, 1.0, 0.0)",
                      "tl.where(num_valid >= 0, 1.0, 0.0)")
SUM_HAS_ONE_BETA = ("a sum gets beta once", "divide", "total, num_valid.to(tl.float32)",
                     "total, (num_valid > 0).to(tl.float32)")
SWAPPED_TOP = ("dendrites' weights into the logits are swapped", "add_dendrite", "top + k *",
               "top + (NUM_DENDRITES - 1 - k) *")
LATERAL = ("lateral weights are transposed", "add_dendrite", "(k * NUM_DENDRITES + j)", "(j * NUM_DENDRITES + k)")
LAST_LABELS = ("the last block of labels is left out", "store_logits", "range(0, NUM_LABELS, BLOCK_C)",
               "range(0, NUM_LABELS - BLOCK_C + 1, BLOCK_C)")
NO_BIAS = ("the bias is left out", "apply_layer", "tl.load(bias + first + c, mask=known, other=0.0)", "(0.0 * c)")
BETA_BIAS = ("beta's bias is the bias", "apply_layer", "tl.load(beta_bias", "tl.load(bias")
TANH = ("tanh without its 2", "activate", "tl.sigmoid(2 * z)", "tl.sigmoid(z)")
GELU = ("gelu's error function of z", "activate", "tl.erf(z * 0.7071067811865476)", "tl.erf(z)")
RELU = ("relu hides NaN", "activate", "tl.where(z < 0, 0.0, z)", "tl.maximum(z, 0.0)")
CENTRE = ("the mean is not taken off", "centre_tokens", "e - mean[:, :, None]", "e")
MEAN_OF_BLOCK = ("the mean is over the padded size", "centre_tokens", "axis=2) / HIDDEN_SIZE", "axis=2) / BLOCK_H")
NO_POSITIONS = ("positions are not added", "centre_tokens", "position_embeddings, position,",
                "position_embeddings, position * 0,")
PHILOX_WORDS = ("Philox's words are in another order", "keep_channels", "tl.interleave(w0, w2)",
                "tl.interleave(w0, w1)")
PHILOX_ROW = ("rows share a dropout mask", "keep_channels", "(zero + row[:, :, None])", "(zero)")
PHILOX_STREAM = ("both dropouts draw the same bits", "keep_channels", "(zero + STREAM)", "(zero)")
PHILOX_BOUND = ("dropout keeps what it should drop", "keep_channels", ">= threshold", "< threshold")
SPLITS = (
    ("a split goes on to the end of its row", "find_split", "tl.minimum(begin + SPLIT_COLUMNS, count)", "count"),
    ("a split ends one column early", "find_split", "begin + SPLIT_COLUMNS, count",
     "begin + SPLIT_COLUMNS - 1, count"),
    ("a padded row has a split too few", "find_split", "num_splits = tl.cdiv(length, SPLIT_COLUMNS)",
     "num_splits = tl.maximum(length // SPLIT_COLUMNS, 1)"),
    ("splits are counted from the next row", "find_split", "first = row * num_splits",
     "first = (row + 1) * num_splits"),
    ("packed splits are numbered by tokens alone", "find_split", "// SPLIT_COLUMNS + row\n",
     "// SPLIT_COLUMNS\n"),
    ("sums are stored at the row", "store_split", "split[:, None] * HIDDEN", "row[:, None] * HIDDEN"),
    ("a split is written short", "store_split", "total, mask=h < HIDDEN_SIZE)", "total, mask=h < HIDDEN_SIZE - 1)"),
    ("tokens of a split are not counted", "store_split", "split_valid + split, num_valid)",
     "split_valid + split, num_valid * 0)"),
    ("a split says it is the next row's", "store_split", "split_row + split, row)",
     "split_row + split, row + 1)"),
    ("the search for a row stops early", "find_row", "size > 1", "size > 2"),
    ("the search takes the row before", "find_row", "first <= place", "first < place"),
    ("the search forgets the rows' own numbers", "find_row", "first // PART + middle", "first // PART"),
)
COMBINE = (
    ("the last split is left out", "add_splits", "range(0, tl.max(num_splits))", "range(0, tl.max(num_splits) - 1)"),
    ("splits of the longest row are added to all", "add_splits", "exists = k < num_splits", "exists = k >= 0"),
    ("the first split alone is added", "add_splits", "(first + k)[:, None]", "first[:, None]"),
    ("the count of the first split alone is added", "add_splits", "split_valid + first + k", "split_valid + first"),
    ("the last split alone is kept", "add_splits", "total += tl.load", "total = tl.load"),
    ("a short last split is left out", "add_splits", "(count + SPLIT_COLUMNS - 1) // SPLIT_COLUMNS",
     "count // SPLIT_COLUMNS"),
    ("packed splits are numbered by tokens alone", "add_splits", "start // SPLIT_COLUMNS + row",
     "start // SPLIT_COLUMNS"),
    ("padded splits are numbered by rows alone", "add_splits", "row * tl.cdiv(length, SPLIT_COLUMNS)", "row"),
    ("the last channel is not read", "add_splits", "& (h < HIDDEN_SIZE)", "& (h < HIDDEN_SIZE - 1)"),
    ("another row's split is taken", "add_splits", "(owner != row)", "(owner < 0)"),
    ("a bad row is no NaN", "add_splits", " + nan_guard[:, None]", ""),
)

MUTANTS = [
    *of("dsn_logits_kernel", MASK_DROPPED, ONE_COLUMN_TOO_FEW, ONE_COLUMN_TOO_MANY, INT32_OFFSET,
        WRONG_POSITION, NO_TYPES, LARGE_ID, NEGATIVE_ID, LARGE_POSITION, START_OF_ROW, PACKED_BOUNDS, NO_EPS,
        BLOCK_FOR_SIZE, NO_SCALE, CONTEXT_OF_TYPE, NO_NAN, LAST_STEP_ALONE, COUNT_OF_LAST_STEP, DIVIDED_BY_TWO,
        EMPTY_ROW_HAS_BETA, SUM_HAS_ONE_BETA, SWAPPED_TOP, LATERAL, LAST_LABELS, NO_BIAS, BETA_BIAS, TANH, GELU, RELU,
        ("a bad row is no NaN", "dsn_logits_kernel", "total + nan_guard[:, None]", "total"),
        MASK_UNMASKED, IDS_UNMASKED, SCALE_UNMASKED, TOP_UNMASKED, BIAS_UNMASKED, BOUNDS_UNMASKED, LOGITS_UNMASKED),
    *of("dsn_splits_kernel", *SPLITS,
        ("a split starts at the row", "dsn_splits_kernel", "tl.max(begin), end", "0, end")),
    *of("dsn_combine_kernel", *COMBINE,
        ("the mean is over splits", "dsn_combine_kernel", "divide(total, num_valid, SUM)",
         "divide(total, num_valid * 0 + 1, SUM)"),
        EMPTY_ROW_HAS_BETA, SUM_HAS_ONE_BETA),
    *of("dsn_token_logits_kernel",
        MASK_DROPPED, INT32_OFFSET, NO_TYPES, LARGE_ID, LARGE_POSITION, NO_EPS, NO_SCALE, CONTEXT_OF_TYPE, NO_NAN,
        SWAPPED_TOP, BETA_BIAS,
        ("a column is the place in the batch", "dsn_token_logits_kernel", "column = place % length", "column = place"),
        ("a packed column is the place in the batch", "find_columns", "column = place - start", "column = place"),
        ("a token has a column of any row", "find_columns", "(column >= 0) & (column < count)", "(column > -2**62)"),
        ("a token is the last row's of those that hold it", "find_columns", "(holders == 1)", "(holders >= 1)"),
        ("tokens are searched for where rows overlap", "find_columns", "tl.where(all_valid, 0, num_rows)", "0"),
        ("a row that holds a token holds the next too", "find_columns", "(place < tl.load", "(place <= tl.load"),
        ("a token that no row holds is no NaN", "dsn_token_logits_kernel",
         'tl.where(held[:, None], rstd, float("nan"))', "rstd"),
        SCALE_UNMASKED, TOP_UNMASKED,
        ("tokens that the mask hides are not written", "dsn_token_logits_kernel", "(inside & (valid == 0))",
         "(inside & (place < 0))"),
        ("beta is left out", "dsn_token_logits_kernel", "x_hat, valid.to(tl.float32)", "x_hat, 0.0 * valid"),
        ("x is not normalised", "dsn_token_logits_kernel", "e * rstd[:, :, None]", "e"),
        ("the last token is left out", "dsn_token_logits_kernel", "is_valid(place, place, num_tokens",
         "is_valid(place, place, num_tokens - 1")),
    *of("embed_pool_kernel",
        MASK_DROPPED, ONE_COLUMN_TOO_FEW, ONE_COLUMN_TOO_MANY, INT32_OFFSET, WRONG_POSITION, NO_TYPES, LARGE_ID, CENTRE,
        MEAN_OF_BLOCK, NO_POSITIONS, PHILOX_WORDS, PHILOX_ROW, PHILOX_STREAM, PHILOX_BOUND, DIVIDED_BY_TWO,
        EMPTY_ROW_HAS_BETA,
        ("eps is left out", "pool_embedded", "/ HIDDEN_SIZE + eps)", "/ HIDDEN_SIZE)"),
        ("a bad index is no NaN", "pool_embedded", 'tl.where(inside, rstd, float("nan"))', "rstd"),
        ("a bad row is no NaN", "embed_pool_kernel", "total + nan_guard[:, None]", "total"),
        ("rstd is stored at the column", "pool_embedded", "stored_rstd + place, rstd", "stored_rstd + column, rstd"),
        ("dropped channels are not made up for", "pool_embedded", "tl.where(keep, scale, 0.0)",
         "tl.where(keep, 1.0, 0.0)"),
        ("beta is not dropped with its channel", "store_pooled", "if DROP_EMBED:\n        beta_share, _",
         "if False:\n        beta_share, _"),
        ("sums start anew in every step", "pool_embedded", "total += x_hat", "total = x_hat"),
        ("gamma is left out", "store_pooled", "row_hat * gamma", "row_hat"),
        ("beta is left out", "store_pooled", "+ beta_share * beta\n", "\n"),
        ("dropout of the pooled row is not made up for", "store_pooled", "result * scale", "result"),
        ("what backward gets has gamma and beta", "store_pooled", "pooled_hat + places, row_hat",
         "pooled_hat + places, result"),
        GAMMA_UNMASKED, OVERLAPPING_RSTD),
    *of("embed_pool_splits_kernel", *SPLITS,
        ("a split starts at the row", "embed_pool_splits_kernel", "tl.max(begin), end", "0, end"),
        ("dropout goes by the column in the split", "pool_embedded", "row[:, None], column, threshold",
         "row[:, None], column - begin, threshold"),
        ("beta's shares are not written", "store_split", "beta_kept, mask", "beta_kept * 0, mask"),
        ("beta's shares start anew in every step", "pool_embedded", "beta_kept += tl", "beta_kept = tl"),
        ("rstd is stored at the column", "pool_embedded", "stored_rstd + place, rstd", "stored_rstd + column, rstd")),
    *of("embed_pool_combine_kernel", *COMBINE,
        ("beta's shares of the last split alone are kept", "add_splits", "beta_kept += tl.load", "beta_kept = tl.load"),
        ("gamma is left out", "store_pooled", "row_hat * gamma", "row_hat"),
        ("the last row is not written", "store_pooled", "(row < num_rows)", "(row < num_rows - 1)"),
        PHILOX_STREAM, EMPTY_ROW_HAS_BETA, SUM_HAS_ONE_BETA),
    *of("bounds_kernel",
        ("the last bound is not looked at", "find_decreases", "i < end, other=0)\n    return",
         "i < end - 1, other=0)\n    return"),
        ("equal bounds are taken for a decrease", "find_decreases", "here > tl", "here >= tl"),
        ("the bound behind the next is looked at", "find_decreases", "bounds + i + 1", "bounds + i + 2"),
        ("the first step alone is looked at", "cu_seqlens_is_valid", "decreases = decreases |", "decreases ="),
        ("the first bound may be anything", "cu_seqlens_is_valid", "(tl.load(cu_seqlens) == 0) & ", ""),
        ("the last bound may be anything", "cu_seqlens_is_valid", " & (tl.load(cu_seqlens + num_rows) == num_tokens)",
         ""),
        ("a group's number is the next one's", "bounds_kernel", "bounds + group + 1", "bounds + group"),
        ("a group with a decrease is forgotten", "bounds_kernel", "tl.where(decreases != 0, -1, group + 1)",
         "group + 1"),
        ("groups begin at the first row", "bounds_kernel", "group.to(tl.int64) * ROWS", "group.to(tl.int64) * 0"),
        ("every program writes the first number", "bounds_kernel", "0, mask=group == 0)", "0)")),
    *of("row_gradients_kernel",
        ("gamma's gradient is added without an atomic", "row_gradients_kernel",
         "tl.atomic_add(d_ln_weight + h, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE, sem=\"relaxed\")",
         "tl.store(d_ln_weight + h, tl.load(d_ln_weight + h, mask=h < HIDDEN_SIZE) + tl.sum(gamma_grad, axis=0), "
         "mask=h < HIDDEN_SIZE)"),
        ("beta's gradient is added without an atomic", "row_gradients_kernel",
         "tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem=\"relaxed\")",
         "tl.store(d_ln_bias + h, tl.load(d_ln_bias + h, mask=h < HIDDEN_SIZE) + tl.sum(beta_grad, axis=0), "
         "mask=h < HIDDEN_SIZE)"),
        ("pooled_hat is read behind its end", "row_gradients_kernel", "pooled_hat + places, mask=stored, other=0.0,",
         "pooled_hat + places, mask=(row >= 0)[:, None] & (h < HIDDEN_SIZE)[None, :], other=0.0,"),
        ("the gradient is not divided", "load_row_gradients", "divide(share, num_valid, SUM)",
         "share, 1.0 * (num_valid > 0)"),
        ("gamma's gradient from the divided one", "row_gradients_kernel", "gamma_grad = grad *",
         "gamma_grad = share[:, None] * grad *"),
        ("beta's gradient from the whole one", "row_gradients_kernel", "grad * share[:, None]", "grad"),
        ("the share is the last row's no more", "row_gradients_kernel", "share, mask=row < num_rows",
         "share, mask=row < num_rows - 1"),
        ("beta's gradient in an empty row", "row_gradients_kernel", "grad * beta_share[:, None]", "grad"),
        ("dropout of the pooled row is forgotten", "load_row_gradients", "if DROP_POOL:", "if False:"),
        ("dropout of the pooled row is not made up for", "load_row_gradients", "grad * scale", "grad"),
        ("beta's dropout is forgotten", "row_gradients_kernel", "if DROP_EMBED:", "if False:"),
        ("beta's dropout is not made up for", "row_gradients_kernel", "embed_scale, 0.0)", "1.0, 0.0)"),
        ("tokens of the last step alone are counted", "count_valid", "num_valid += tl.sum", "num_valid = tl.sum"),
        ("beta's shares start anew in every step", "row_gradients_kernel", "beta_kept += tl", "beta_kept = tl"),
        ("the last row is not written", "row_gradients_kernel", "(row < num_rows)[", "(row < num_rows - 1)["),
        ("the last channel is not written", "row_gradients_kernel", "(h < HIDDEN_SIZE)[None, :]",
         "(h < HIDDEN_SIZE - 1)[None, :]"),
        ("programs write their shares to one place", "row_gradients_kernel",
         "tl.program_id(0).to(tl.int64) * HIDDEN_SIZE + h", "h"),
        ("gamma's gradient of one row of a program is added", "row_gradients_kernel",
         "d_ln_weight + h, tl.sum(gamma_grad", "d_ln_weight + h, tl.max(gamma_grad"),
        ("beta's gradient of one row of a program is added", "row_gradients_kernel",
         "d_ln_bias + h, tl.sum(beta_grad", "d_ln_bias + h, tl.max(beta_grad"),
        ("invalid bounds are taken for valid ones", "load_row_gradients", 'float("nan"))', "share)")),
    *of("scatter_gradients_kernel",
        ("gamma's gradient is added without an atomic", "scatter_gradients_kernel",
         "tl.atomic_add(d_ln_weight + h, tl.sum(grad * row_hat, axis=0), mask=h < HIDDEN_SIZE, sem=\"relaxed\")",
         "tl.store(d_ln_weight + h, tl.load(d_ln_weight + h, mask=h < HIDDEN_SIZE) + tl.sum(grad * row_hat, axis=0), "
         "mask=h < HIDDEN_SIZE)"),
        ("rstd is read behind its end", "scatter_gradients_kernel", "rstd + place, mask=read, other=0.0)",
         "rstd + place)"),
        ("the mean of the gradient is not taken off", "differentiate_tokens", "gradient - mean[:, :, None] - e",
         "gradient - e"),
        ("the slope along x is not taken off", "differentiate_tokens", " - e * slope[:, :, None]", ""),
        ("gamma is left out", "scatter_gradients_kernel", "row_gradient = grad * tl.load(ln_weight + h, mask=h < "
         "HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]", "row_gradient = grad"),
        ("1 / std is left out", "differentiate_tokens", "(rstd * share)", "(rstd * 0 + share)"),
        ("the share of a token is left out", "differentiate_tokens", "(rstd * share)", "(rstd + share * 0)"),
        ("x is not normalised", "differentiate_tokens", "slope = rstd * rstd *", "slope ="),
        ("the mean is over the padded size", "differentiate_tokens", "tl.sum(gradient, axis=2) / HIDDEN_SIZE",
         "tl.sum(gradient, axis=2) / gradient.shape[2]"),
        ("dropout is forgotten", "scatter_gradients_kernel", "tl.where(keep, gradient * embed_scale, 0.0)", "gradient"),
        ("dropped channels are not made up for", "scatter_gradients_kernel", "gradient * embed_scale", "gradient"),
        ("beta's dropout is forgotten", "scatter_gradients_kernel", "if DROP_EMBED:\n        beta_grad",
         "if False:\n        beta_grad"),
        ("tokens outside a table are added", "scatter_gradients_kernel", "read = valid & inside", "read = valid"),
        ("types are as far apart as tokens", "scatter_gradients_kernel", "token_type * num_positions", "token_type"),
        ("words are added to the row before", "scatter_gradients_kernel", "d_word + token_id[:, :, None]",
         "d_word + tl.maximum(token_id - 1, 0)[:, :, None]"),
        ("positions are not added", "scatter_gradients_kernel", "gradient,\n                      mask=added",
         "gradient * 0,\n                      mask=added"),
        ("of a column's rows one alone is added", "scatter_gradients_kernel", "tl.sum(gradient, axis=0, keep",
         "tl.max(gradient, axis=0, keep"),
        ("the last column is left out", "scatter_gradients_kernel", "is_valid(place, column, end[:, None]",
         "is_valid(place, column, end[:, None] - 1"),
        ("a split starts at the row", "scatter_gradients_kernel", "tl.range(tl.max(begin), ", "tl.range(0, "),
        ("every split adds gamma's gradient", "scatter_gradients_kernel", "(begin == 0)", "(begin >= 0)"),
        ("the tokens of a split alone are counted", "scatter_gradients_kernel", "count_valid(start, count",
         "count_valid(start, end"),
        ("gamma's gradient from the divided one", "scatter_gradients_kernel", "grad * row_hat",
         "share[:, None] * grad * row_hat"),
        ("invalid bounds are taken for valid ones", "load_row_gradients", 'float("nan"))', "share)")),
    *of("segment_gradients_kernel",
        ("tokens are taken in their own order", "segment_gradients_kernel",
         "cell = tl.load(order + i, mask=read, other=0)", "cell = (i * read).to(tl.int32)"),
        ("a chunk goes on to the end of its segment", "segment_gradients_kernel",
         "tl.minimum(end, begin + CHUNK)", "end"),
        ("a chunk starts with its segment", "segment_gradients_kernel", "start + number * CHUNK", "start"),
        ("a chunk ends one token early", "segment_gradients_kernel", "i < stop[:, None]", "i < stop[:, None] - 1"),
        ("a chunk takes a token more", "segment_gradients_kernel", "i < stop[:, None]", "i <= stop[:, None]"),
        ("sums start anew in every step", "segment_gradients_kernel", "total += gradient", "total = gradient"),
        ("every cell is the first row's", "segment_gradients_kernel", "row = cell // width", "row = cell * 0"),
        ("columns go on in the next row", "segment_gradients_kernel", "(cell - row * width)", "cell"),
        ("packed tokens are where a padded batch has them", "segment_gradients_kernel", "if cu_seqlens is not None:",
         "if False:"),
        ("every word is the first", "load_common_rows", "word_embeddings, token_id[:, None]",
         "word_embeddings, token_id[:, None] * 0"),
        ("sparse words are the first of the table", "load_common_rows", "segment if word_ids is None else "
         "tl.load(word_ids + segment)", "segment"),
        ("words have no type", "load_common_rows", "if token_type_ids is None:", "if False:"),
        ("positions have no type", "load_common_rows", "token_type[:, None]", "token_type[:, None] * 0"),
        ("types share their positions' rows", "load_common_rows", "segment - token_type * num_positions", "segment"),
        ("the mean is not taken off", "segment_gradients_kernel", "e -= (tl", "e -= 0 * (tl"),
        ("gamma is left out", "segment_gradients_kernel", "gamma * load_rows", "1.0 * load_rows"),
        ("every row has the first one's share", "segment_gradients_kernel", "row_share + row", "row_share + row * 0"),
        ("rstd is that of a row's first token", "segment_gradients_kernel", "rstd + place,", "rstd + place - column,"),
        ("token types are not added", "segment_gradients_kernel",
         "if token_type_ids is not None:\n                e", "if False:\n                e"),
        ("the last word is read nowhere", "segment_gradients_kernel", "token_id < vocab_size",
         "token_id < vocab_size - 1"),
        ("segments as long as a chunk are cut", "segment_gradients_kernel", "(end - start <= CHUNK)",
         "(end - start < CHUNK)"),
        ("the first chunk of a segment overwrites another's last", "segment_gradients_kernel",
         "2 * slot + first.to(tl.int64)", "2 * slot"),
        ("cut segments are written as if whole", "segment_gradients_kernel", "first & (end - start <= CHUNK)",
         "first & (start <= end)"),
        ("positions are not added", "segment_gradients_kernel", "gradient, sem=", "gradient * 0, sem="),
        ("types share their positions", "segment_gradients_kernel", "context = token_type * num_positions + position",
         "context = position"),
        ("dropout is forgotten", "segment_gradients_kernel", "tl.where(keep, gradient * embed_scale, 0.0)", "gradient"),
        ("the last channel is not written", "segment_gradients_kernel", "mask=whole[:, None] & (h < HIDDEN_SIZE)",
         "mask=whole[:, None] & (h < HIDDEN_SIZE - 1)")),
    *of("token_keys_kernel",
        ("tokens that are not valid have a key", "load_cells", "valid & inside", "inside"),
        ("tokens outside a table have a key", "load_cells", "valid & inside", "valid"),
        ("the last word is no token's", "token_keys_kernel", "tl.where(read, token_id, vocab_size)",
         "tl.where(read & (token_id < vocab_size - 1), token_id, vocab_size)"),
        ("tokens that are not valid are the first word's", "token_keys_kernel", "tl.where(read, token_id, vocab_size)",
         "tl.where(read, token_id, 0)"),
        ("every position is one less", "load_cells", "num_positions + position,", "num_positions + position - 1,"),
        ("types share their positions", "load_cells", "token_type * num_positions + position,", "position,"),
        ("a row has as many columns as there are rows", "load_cells", "place % length", "place % num_rows"),
        ("columns go on in the next row", "load_cells", "place % length", "place"),
        ("packed columns go on in the next row", "load_cells", "place - tl.load(cu_seqlens + row).to(tl.int64)",
         "place"),
        ("packed cells are of one row", "load_cells", "row * width +", "0 * width +"),
        ("the last token has no key", "token_keys_kernel", "inside = place < num_tokens",
         "inside = place < num_tokens - 1"),
        ("one cell is every token's", "token_keys_kernel", "cell.to(cells", "(cell * 0).to(cells")),
    *of("order_tokens_kernel",
        ("tokens that are not valid are counted", "load_cells", "valid & inside", "inside"),
        ("tokens outside a table are counted", "load_cells", "valid & inside", "valid"),
        ("columns go on in the next row", "load_cells", "place % length", "place"),
        ("packed cells are of one row", "load_cells", "row * width +", "0 * width +"),
        ("tokens are counted at the next id", "order_tokens_kernel", "offsets + token_id + 2",
         "offsets + token_id + 1"),
        ("every token counts twice", "order_tokens_kernel", "(BLOCK_TOKENS,), 1,", "(BLOCK_TOKENS,), 2,"),
        ("all tokens of an id take its first place", "order_tokens_kernel",
         'tl.atomic_add(offsets + token_id + 1, one, mask=read, sem="relaxed")',
         "tl.load(offsets + token_id + 1, mask=read, other=0)"),
        ("tokens take the id's places before", "order_tokens_kernel", "offsets + token_id + 1, one",
         "offsets + token_id, one"),
        ("a token's cell is its id", "order_tokens_kernel", "cell.to(order", "token_id.to(order"),
        ("a cell is the next token's", "order_tokens_kernel", "cell.to(order", "(cell + 1).to(order"),
        # Not the last word, behind which nothing starts.
        ("a word's tokens are not counted", "order_tokens_kernel", "token_id + 2, one, mask=read",
         "token_id + 2, one, mask=read & (token_id != vocab_size - 2)"),
        ("the first word's tokens take no place", "order_tokens_kernel", "order.dtype.element_ty), mask=read",
         "order.dtype.element_ty), mask=read & (token_id > 0)")),
    *of("segment_combine_kernel",
        ("the last chunk is left out", "segment_combine_kernel", "range(0, tl.max(num_chunks))",
         "range(0, tl.max(num_chunks) - 1)"),
        ("the first chunk is left out", "segment_combine_kernel", "range(0, tl.max", "range(1, tl.max"),
        ("a cut segment is looked for one chunk early", "segment_combine_kernel", "slot * CHUNK + CHUNK - 1",
         "slot * CHUNK - 1"),
        ("a segment is summed up wherever it is found", "segment_combine_kernel", "(start // CHUNK == slot) & ", ""),
        ("the first chunk is looked for among the others", "segment_combine_kernel", "tl.where(k == 0, 1, 0)", "0"),
        ("all chunks are looked for among the first", "segment_combine_kernel", "tl.where(k == 0, 1, 0)", "1"),
        ("the last chunk alone is kept", "segment_combine_kernel", "total += tl.load", "total = tl.load"),
        ("the first chunk is added again and again", "segment_combine_kernel", "2 * (slot + k)", "2 * slot"),
        ("a segment of two chunks is not added", "segment_combine_kernel",
         "end - start > CHUNK", "end - start > 2 * CHUNK"),
        ("segments that were not cut are written", "segment_combine_kernel", "mask=cut[:, None]",
         "mask=(cut == cut)[:, None]"),
        ("a short last chunk is left out", "segment_combine_kernel", "(end - start + CHUNK - 1) // CHUNK",
         "(end - start) // CHUNK"),
        ("the last channel is not written", "segment_combine_kernel", "mask=cut[:, None] & (h < HIDDEN_SIZE)",
         "mask=cut[:, None] & (h < HIDDEN_SIZE - 1)"),
        ("the last segment is left out", "segment_combine_kernel", "offsets, num_segments, 0)",
         "offsets, num_segments - 1, 0)")),
]
