// From rows to a list of (id, context row, column). Every layout, mask, token type and position is resolved here, and
// every index that is outside its table is found here; the rest of the kernels reads the list alone.
#pragma once

#include <cstdint>
#include <type_traits>

#include "arguments.h"

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

inline bool is_valid(const Tokens& tokens, int64_t token) {
  switch (tokens.mask_bytes) {
    case 1: return static_cast<const uint8_t*>(tokens.mask)[token];
    case 4: return static_cast<const uint32_t*>(tokens.mask)[token];
    case 8: return static_cast<const uint64_t*>(tokens.mask)[token];
    default: return true;
  }
}

// Without mask, token types and positions the compiler turns the loop into vector code. A negative id counts as a large
// one.
template <class Id>
inline bool append_plain(const Tokens& tokens, const Split& split, TokenList& list) {
  using Unsigned = std::make_unsigned_t<Id>;
  const Id* __restrict ids = static_cast<const Id*>(tokens.ids.data) + tokens.row_start(split.row) + split.begin;
  int32_t* __restrict id = list.id + list.size;
  int32_t* __restrict context = list.context + list.size;
  int32_t* __restrict column = list.column + list.size;
  const int32_t first = int32_t(split.begin), size = int32_t(split.end - split.begin);
  Unsigned largest = 0;
  for (int32_t i = 0; i < size; ++i) {
    largest = largest > Unsigned(ids[i]) ? largest : Unsigned(ids[i]);
    id[i] = int32_t(ids[i]);
    context[i] = column[i] = first + i;
  }
  list.size += size;
  return size == 0 || largest < Unsigned(tokens.vocab_size);
}

inline bool append_general(const Tokens& tokens, const Split& split, TokenList& list) {
  const int64_t start = tokens.row_start(split.row);
  for (int64_t c = split.begin; c < split.end; ++c) {
    const int64_t token = start + c;
    if (!is_valid(tokens, token)) continue;
    const int64_t id = tokens.ids[token];
    const int64_t type = tokens.token_types.data ? tokens.token_types[token] : 0;
    const int64_t position = tokens.positions.data ? tokens.positions[token] : c;
    const bool bad[] = {id < 0 || id >= tokens.vocab_size, type < 0 || type >= tokens.num_types,
                        position < 0 || position >= tokens.num_positions};
    for (int kind = 0; kind < 3; ++kind)
      if (bad[kind]) {
        report_bad_index(tokens, token, BadIndexKind(kind));
        return false;
      }
    list.id[list.size] = int32_t(id);
    list.context[list.size] = int32_t(type * tokens.positions_stride + position);
    list.column[list.size] = int32_t(c);
    ++list.size;
  }
  return true;
}

// Appends the valid tokens of a split. Returns false, and reports the index, if one is outside its table.
inline bool append(const Tokens& tokens, const Split& split, TokenList& list) {
  if (tokens.mask_bytes == 0 && !tokens.token_types.data && !tokens.positions.data) {
    const int64_t size = list.size;
    if (tokens.ids.is_int64 ? append_plain<int64_t>(tokens, split, list) : append_plain<int32_t>(tokens, split, list))
      return true;
    list.size = size;  // the general form finds which index it is
  }
  return append_general(tokens, split, list);
}

}  // namespace
}  // namespace dendritic_bert
