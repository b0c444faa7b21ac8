// From rows to a list of (id, context row, column). Every layout, mask, token type and position is resolved here, and
// every index that is outside its table is found here; the rest of the kernels reads the list alone.
#pragma once

#include <cstdint>
#include <type_traits>

#include "arguments.h"
#include "valid_tokens.h"

namespace dendritic_bert {
namespace {

// Every row is summed split by split, and then its splits are added up, so that the result has the same bits whether
// one thread computes it or several do.
constexpr int64_t split_columns = 256;
constexpr int64_t list_capacity = 2 * split_columns;
constexpr int64_t max_prefetch_distance = 16;

// The columns [begin, end) of a row.
struct Split {
  int64_t row, begin, end;
};

struct TokenList {
  int64_t size = 0;
  int32_t id[list_capacity + max_prefetch_distance];
  int32_t context[list_capacity + max_prefetch_distance];
  int32_t column[list_capacity];
};

// Keeps the lowest of the tokens that any thread reports.
inline void report_bad_index(const Tokens& tokens, int64_t token, BadIndexKind kind) {
  const int64_t found = token * 4 + kind;
  int64_t lowest = __atomic_load_n(tokens.bad_index, __ATOMIC_RELAXED);
  while (found < lowest &&
         !__atomic_compare_exchange_n(tokens.bad_index, &lowest, found, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

// The tokens of a split that all are valid, at the positions of their columns. The compiler turns the loops into vector
// code. A negative index counts as a large one. Returns false, and appends none, if one is outside its table.
template <class Id, class Type>
inline bool append_plain(const Tokens& tokens, const Split& split, TokenList& list) {
  using UnsignedId = std::make_unsigned_t<Id>;
  using UnsignedType = std::make_unsigned_t<Type>;
  const int64_t start = tokens.row_start(split.row) + split.begin;
  const Id* __restrict ids = static_cast<const Id*>(tokens.ids.data) + start;
  int32_t* __restrict id = list.id + list.size;
  int32_t* __restrict context = list.context + list.size;
  int32_t* __restrict column = list.column + list.size;
  const int32_t first = int32_t(split.begin), size = int32_t(split.end - split.begin);
  UnsignedId largest = 0;
  for (int32_t i = 0; i < size; ++i) {
    largest = largest > UnsignedId(ids[i]) ? largest : UnsignedId(ids[i]);
    id[i] = int32_t(ids[i]);
    context[i] = column[i] = first + i;
  }
  if (size > 0 && largest >= UnsignedId(tokens.vocab_size)) return false;
  if (tokens.token_types.data) {
    const Type* __restrict types = static_cast<const Type*>(tokens.token_types.data) + start;
    const uint32_t stride = uint32_t(tokens.positions_stride);  // unsigned, since a product with a bad type wraps
    UnsignedType largest_type = 0;
    for (int32_t i = 0; i < size; ++i) {
      largest_type = largest_type > UnsignedType(types[i]) ? largest_type : UnsignedType(types[i]);
      context[i] = int32_t(uint32_t(context[i]) + uint32_t(types[i]) * stride);
    }
    if (size > 0 && largest_type >= UnsignedType(tokens.num_types)) return false;
  }
  list.size += size;
  return true;
}
template <class Id>
inline bool append_plain(const Tokens& tokens, const Split& split, TokenList& list) {
  return tokens.token_types.is_int64 ? append_plain<Id, int64_t>(tokens, split, list)
                                     : append_plain<Id, int32_t>(tokens, split, list);
}
inline bool append_plain(const Tokens& tokens, const Split& split, TokenList& list) {
  return tokens.ids.is_int64 ? append_plain<int64_t>(tokens, split, list) : append_plain<int32_t>(tokens, split, list);
}

// The tokens of a row from column `first` on whose bit is set. Reports the first index that is outside its table.
inline bool append_general(const Tokens& tokens, int64_t row, int64_t first, uint64_t bits, TokenList& list) {
  const int64_t start = tokens.row_start(row);
  for (; bits; bits &= bits - 1) {
    const int64_t column = first + __builtin_ctzll(bits), token = start + column;
    const int64_t id = tokens.ids[token];
    const int64_t type = tokens.token_types.data ? tokens.token_types[token] : 0;
    const int64_t position = tokens.positions.data ? tokens.positions[token] : column;
    const bool bad[] = {id < 0 || id >= tokens.vocab_size, type < 0 || type >= tokens.num_types,
                        position < 0 || position >= tokens.num_positions};
    for (int kind = 0; kind < 3; ++kind)
      if (bad[kind]) {
        report_bad_index(tokens, token, BadIndexKind(kind));
        return false;
      }
    list.id[list.size] = int32_t(id);
    list.context[list.size] = int32_t(type * tokens.positions_stride + position);
    list.column[list.size] = int32_t(column);
    ++list.size;
  }
  return true;
}

// Appends the valid tokens of a split. Returns false, and reports the index, if one is outside its table.
inline bool append(const Tokens& tokens, const Split& split, TokenList& list) {
  const bool is_plain = !tokens.positions.data;
  if (is_plain && tokens.mask_bytes == 0 && append_plain(tokens, split, list)) return true;
  const int64_t start = tokens.row_start(split.row);
  for (int64_t first = split.begin; first < split.end; first += word_tokens) {
    const int64_t size = std::min(word_tokens, split.end - first);
    const uint64_t bits = valid_bits(tokens, start + first, size);
    if (!bits) continue;
    Split run{split.row, first, first + size};
    bool is_run = is_plain;
    if (bits != low_bits(size)) {
      is_run &= (bits & (bits + (bits & -bits))) == 0;  // as in a row that is padded on either side
      run.begin += __builtin_ctzll(bits);
      run.end = run.begin + __builtin_popcountll(bits);
    }
    if (is_run && append_plain(tokens, run, list)) continue;
    if (!append_general(tokens, split.row, first, bits, list)) return false;
  }
  return true;
}

}  // namespace
}  // namespace dendritic_bert
