// From the arguments' layouts to tokens: which rows of the tables each adds up. Every layout, mask, type and position ends
// here, and so does every index that does not fit its table: nothing is read for it, and its row becomes NaN.
#pragma once

#include "arguments.h"
#include "device.cuh"

__device__ __forceinline__ int64_t at(const Indices& indices, int64_t i) {
  return indices.is_int64 ? static_cast<const int64_t*>(indices.data)[i] : static_cast<const int32_t*>(indices.data)[i];
}

// Tokens [begin, begin + length) make a row. Where cu_seqlens does not fit, or a row is longer than the position table,
// `bad` is set and the range is cut to what input_ids holds.
struct RowRange {
  int64_t begin = 0, length = 0;
  bool bad = false;
};

__device__ __forceinline__ RowRange row_range(const Tokens& tokens, int64_t row) {
  if (row >= tokens.rows) return {};
  if (!tokens.cu_seqlens.data) return {row * tokens.length, tokens.length, false};
  const int64_t begin = at(tokens.cu_seqlens, row), end = at(tokens.cu_seqlens, row + 1), total = tokens.total;
  const bool good = begin >= 0 && begin <= end && end <= total && (row > 0 || begin == 0) &&
                    (row + 1 < tokens.rows || end == total);
  if (good) return {begin, end - begin, !tokens.positions.data && end - begin > tokens.num_positions};
  const int64_t first = row == 0 || begin < 0 ? 0 : begin < total ? begin : total;
  const int64_t last = row + 1 == tokens.rows || end > total ? total : end;
  return {first, last > first ? last - first : 0, true};
}

// Of a row's columns those that a kernel may write a token's own result for: from `first` on no earlier row holds them, and
// before `end` no later one does either. Columns from `end` on are this row's to make NaN.
struct OwnColumns {
  int64_t first, end;
};

__device__ __forceinline__ bool is_sound(const Tokens& tokens) { return !tokens.sound || *tokens.sound; }

// All of a good row, where cu_seqlens is sound. Where it is not, the rows' bounds still lead from 0 to `total`, so that the
// way up passes every token: in an earlier row too if a bound before the row lies behind the token, in a later one too if
// a bound behind the row lies at or before it. All lanes take part.
__device__ __forceinline__ OwnColumns own_columns(const Tokens& tokens, int64_t row, const RowRange& range) {
  if (is_sound(tokens)) return {0, range.bad ? 0 : range.length};
  int64_t first = range.begin, end = range.begin + range.length;
  for (int64_t i = 1 + threadIdx.x % 32; i < tokens.rows; i += 32) {
    const int64_t bound = at(tokens.cu_seqlens, i);
    if (i <= row && bound > first) first = bound;
    if (i > row && bound < end) end = bound;
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const int64_t other_first = __shfl_xor_sync(all_lanes, first, distance), other_end = __shfl_xor_sync(all_lanes, end, distance);
    if (other_first > first) first = other_first;
    if (other_end < end) end = other_end;
  }
  return {first - range.begin, range.bad ? 0 : end - range.begin};
}

struct Token {
  int32_t id = 0, context = 0;
  bool kept = false, bad = false;
};

__device__ __forceinline__ bool shown(const Tokens& tokens, int64_t token) {
  switch (tokens.mask_bytes) {
    case 1: return static_cast<const uint8_t*>(tokens.mask)[token] != 0;
    case 4: return static_cast<const uint32_t*>(tokens.mask)[token] != 0;
    case 8: return static_cast<const uint64_t*>(tokens.mask)[token] != 0;
    default: return true;
  }
}

// The four loads do not wait for one another.
__device__ __forceinline__ Token read_token(const Tokens& tokens, const RowRange& range, int64_t column) {
  const int64_t token = range.begin + column, id = at(tokens.ids, token);
  const int64_t type = tokens.token_types.data ? at(tokens.token_types, token) : 0;
  const int64_t position = tokens.positions.data ? at(tokens.positions, token) : column;
  const bool kept = shown(tokens, token);
  const bool fits = id >= 0 && id < tokens.vocab_size && type >= 0 && type < tokens.num_types && position >= 0 &&
                    position < tokens.num_positions;
  Token result;
  result.kept = kept && fits;
  result.bad = kept && !fits;
  if (result.kept) {
    result.id = int32_t(id);
    result.context = int32_t(type * tokens.num_positions + position);
  }
  return result;
}

// A warp's tokens in shared memory, padding squeezed out, so that no lane gathers a row for nothing.
constexpr int tile_tokens = 32, list_padding = 8;

struct TokenList {
  int2 rows[tile_tokens + list_padding];       // (id, context)
  float scale[tile_tokens + list_padding];     // of the word's row, where the table has scales
  int32_t column[tile_tokens + list_padding];  // in its row, for training
};

// Columns column, column + step, ... of the tile, one a lane, into the list; returns their number. The list goes on with
// copies of its first token, which may be gathered like any other and must be weighted by 0. All lanes take part.
template <bool scaled>
__device__ __forceinline__ int fill(TokenList& list, const Token& token, int64_t column, const float* word_scale) {
  const int lane = threadIdx.x % 32;
  const unsigned kept = __ballot_sync(all_lanes, token.kept);
  const int count = __popc(kept), slot = __popc(kept & ((1u << lane) - 1));
  __syncwarp();  // the last tile has been read
  if (token.kept) {
    list.rows[slot] = make_int2(token.id, token.context);
    list.column[slot] = int32_t(column);
    if constexpr (scaled) list.scale[slot] = word_scale[token.id];
  }
  __syncwarp();
  if (count && lane < list_padding) {
    list.rows[count + lane] = list.rows[0];
    list.column[count + lane] = list.column[0];
    if constexpr (scaled) list.scale[count + lane] = list.scale[0];
  }
  __syncwarp();
  return count;
}
