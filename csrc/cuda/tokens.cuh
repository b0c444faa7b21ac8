// From the layouts of the arguments to tokens: which rows of the tables each token adds up. Every layout, mask, token
// type and position ends here, and so does every index that lies outside its table: nothing is read for such an index,
// and its row of the result becomes NaN.
#pragma once

#include "arguments.h"
#include "device.cuh"

namespace dendritic_bert {

// A row holds the tokens [begin, begin + length). If its bounds in cu_seqlens are invalid, or it is longer than the
// position table, `bad` is set and the range is cut to the tokens that input_ids has.
struct RowRange {
  int64_t begin = 0, length = 0;
  bool bad = false;
};

__device__ __forceinline__ RowRange row_range(const Tokens& tokens, int64_t row) {
  if (row >= tokens.rows) return {};
  if (!tokens.cu_seqlens.data) return {row * tokens.length, tokens.length, false};
  const int64_t begin = tokens.cu_seqlens[row], end = tokens.cu_seqlens[row + 1];
  const int64_t total = tokens.total;
  const bool valid =
      begin >= 0 && begin <= end && end <= total && (row > 0 || begin == 0) && (row + 1 < tokens.rows || end == total);
  if (valid) return {begin, end - begin, !tokens.positions.data && end - begin > tokens.num_positions};
  const int64_t first = row == 0 || begin < 0 ? 0 : begin < total ? begin : total;
  const int64_t last = row + 1 == tokens.rows || end > total ? total : end;
  return {first, last > first ? last - first : 0, true};
}

// The columns of a row whose tokens belong to this row alone, so that a kernel may write a result for each of them:
// columns before `first` also belong to an earlier row, columns from `end` on are this row's to make NaN.
struct OwnColumns {
  int64_t first, end;
};

__device__ __forceinline__ bool cu_seqlens_is_valid(const Tokens& tokens) {
  return !tokens.cu_seqlens_valid || *tokens.cu_seqlens_valid;
}

// If cu_seqlens is valid, a good row owns all of its columns. If it is not, the bounds of the rows still lead from 0 to
// `total` and so pass every token on the way up. Hence a token also belongs to an earlier row if a bound before this
// row lies behind the token, and to a later row if a bound after this row lies at or before it. All lanes take part.
__device__ __forceinline__ OwnColumns own_columns(const Tokens& tokens, int64_t row, const RowRange& range) {
  if (cu_seqlens_is_valid(tokens)) return {0, range.bad ? 0 : range.length};
  int64_t first = range.begin, end = range.begin + range.length;
  for (int64_t i = 1 + threadIdx.x % 32; i < tokens.rows; i += 32) {
    const int64_t bound = tokens.cu_seqlens[i];
    if (i <= row && bound > first) first = bound;
    if (i > row && bound < end) end = bound;
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const int64_t other_first = __shfl_xor_sync(all_lanes, first, distance);
    const int64_t other_end = __shfl_xor_sync(all_lanes, end, distance);
    if (other_first > first) first = other_first;
    if (other_end < end) end = other_end;
  }
  return {first - range.begin, range.bad ? 0 : end - range.begin};
}

// The rows of the word and context tables that a token adds up. A token is valid if the mask shows it and its indices
// lie in their tables; it is bad if the mask shows it and an index does not.
struct Token {
  int32_t id = 0, context = 0;
  bool valid = false, bad = false;
};

__device__ __forceinline__ bool load_mask(const Tokens& tokens, int64_t token) {
  switch (tokens.mask_bytes) {
    case 1: return static_cast<const uint8_t*>(tokens.mask)[token] != 0;
    case 4: return static_cast<const uint32_t*>(tokens.mask)[token] != 0;
    case 8: return static_cast<const uint64_t*>(tokens.mask)[token] != 0;
    default: return true;
  }
}

// None of the four loads waits for another.
__device__ __forceinline__ Token load_token(const Tokens& tokens, const RowRange& range, int64_t column) {
  const int64_t token = range.begin + column, id = tokens.ids[token];
  const int64_t type = tokens.token_types.data ? tokens.token_types[token] : 0;
  const int64_t position = tokens.positions.data ? tokens.positions[token] : column;
  const bool valid = load_mask(tokens, token);
  const bool in_tables = id >= 0 && id < tokens.vocab_size && type >= 0 && type < tokens.num_types && position >= 0 &&
                         position < tokens.num_positions;
  Token result;
  result.valid = valid && in_tables;
  result.bad = valid && !in_tables;
  if (result.valid) {
    result.id = int32_t(id);
    result.context = int32_t(type * tokens.num_positions + position);
  }
  return result;
}

// The valid tokens of a warp's tile in shared memory, without gaps, so that no lane gathers rows for padding.
constexpr int tile_tokens = 32, list_padding = 8;

struct TokenList {
  int2 rows[tile_tokens + list_padding];       // (id, context)
  float scale[tile_tokens + list_padding];     // of the word's row, if the table has scales
  int32_t column[tile_tokens + list_padding];  // of the token in its row
};

// Writes the valid tokens of a tile into the list, one token per lane, and returns their number. Behind them the list
// holds copies of its first token, which may be gathered like any other but must be given the weight 0. All lanes take
// part.
template <bool scaled>
__device__ __forceinline__ int fill_list(TokenList& list, const Token& token, int64_t column, const float* word_scale) {
  const int lane = threadIdx.x % 32;
  const unsigned valid = __ballot_sync(all_lanes, token.valid);
  const int num_valid = __popc(valid), slot = __popc(valid & ((1u << lane) - 1));
  __syncwarp();  // every lane has read the last tile
  if (token.valid) {
    list.rows[slot] = make_int2(token.id, token.context);
    list.column[slot] = int32_t(column);
    if constexpr (scaled) list.scale[slot] = word_scale[token.id];
  }
  __syncwarp();
  if (num_valid && lane < list_padding) {
    list.rows[num_valid + lane] = list.rows[0];
    list.column[num_valid + lane] = list.column[0];
    if constexpr (scaled) list.scale[num_valid + lane] = list.scale[0];
  }
  __syncwarp();
  return num_valid;
}

}  // namespace dendritic_bert
