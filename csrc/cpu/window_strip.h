// Which tokens are computed together. A strip is a stretch of columns in scratch memory: short rows side by side with
// columns of zeros between them, or a part of a row that is too long for one strip, with the neighbours that its window
// layers see.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "arguments.h"
#include "tokens.h"

namespace dendritic_bert {
namespace {

// The columns of a row that are pooled at once. At 32 channels and 5 layers, rows of 25 tokens take the same time
// within 2 % for anything from 48 to 512 (AMD EPYC, AVX-512): fewer columns leave L1 to u, more read the weights less
// often.
constexpr int64_t strip_columns = 256;
constexpr int64_t max_pieces = 16;

// Columns [begin, end) of a row, which are pooled, and around them [first, last), which window layers read. They lie
// in the strip from column `start` on.
struct Piece {
  int64_t row, begin, end, first, last, start;
  int64_t in_strip(int64_t column) const { return start + column - first; }
  int64_t start_of_gap() const { return in_strip(last); }
};

// Columns [begin, end) of the strip.
struct Columns {
  int64_t begin, end;
};

struct Strip {
  // token[c] is the row of the tables that column c reads, K * V rows in all, or -1 where there is no valid token. Its
  // first and last `gap` columns belong to no row, nor do `gap` columns between two rows.
  int64_t* token;
  int64_t capacity, gap, size;
  bool has_holes;  // whether a column inside a row has no valid token
  int64_t num_pieces;
  Piece pieces[max_pieces];

  void clear() {
    std::fill(token, token + gap, -1);
    size = gap;
    num_pieces = 0;
    has_holes = false;
  }
  bool has_room(int64_t columns) const { return num_pieces < max_pieces && size + columns + gap <= capacity; }
};

// The length of the longest row, which decides how long a strip has to be.
inline int64_t longest_row_of(const Tokens& tokens) {
  int64_t longest = 0;
  for (int64_t row = 0; row < tokens.rows; ++row) longest = std::max(longest, tokens.row_length(row));
  return longest;
}

// A strip without memory for its tokens. The gap is as next_cut in window_layers.h needs it, and at least least_gap.
inline Strip strip_for(const Windows& windows, int64_t longest_row, int64_t least_gap = 0) {
  Strip strip{};
  strip.gap = std::max(2 * windows.radius, least_gap);
  strip.capacity = std::min(strip_columns + 2 * windows.halo(), std::max(strip_columns, longest_row)) + 2 * strip.gap;
  return strip;
}

// The columns that layer j has to compute for a piece: those that the layers after it read, which are fewer from layer
// to layer.
inline Columns columns_after(const Windows& windows, const Piece& piece, int64_t layer) {
  const int64_t halo = windows.halo_after(layer);
  return {piece.in_strip(std::max(piece.first, piece.begin - halo)),
          piece.in_strip(std::min(piece.last, piece.end + halo))};
}

// The columns of a row from its first valid token to its last one.
inline Columns valid_columns(const Tokens& tokens, int64_t row) {
  const int64_t start = tokens.row_start(row), size = tokens.row_length(row);
  if (tokens.mask_bytes == 0) return {0, size};
  Columns columns{0, 0};
  for (int64_t first = (size - 1) / word_tokens * word_tokens; first >= 0 && columns.end == 0; first -= word_tokens) {
    const uint64_t bits = valid_bits(tokens, start + first, std::min(word_tokens, size - first));
    if (bits) columns.end = first + 64 - __builtin_clzll(bits);
  }
  for (; columns.begin < columns.end; columns.begin += word_tokens) {
    const uint64_t bits = valid_bits(tokens, start + columns.begin, std::min(word_tokens, columns.end - columns.begin));
    if (bits) return {columns.begin + __builtin_ctzll(bits), columns.end};
  }
  return columns;
}

// The row of the tables that a valid token reads, or -1, and the index is reported, if it is outside its table.
inline int64_t table_row(const Tokens& tokens, int64_t token) {
  const int64_t id = tokens.ids[token], type = tokens.token_types.data ? tokens.token_types[token] : 0;
  if (id < 0 || id >= tokens.vocab_size) {
    report_bad_index(tokens, token, bad_id);
    return -1;
  }
  if (type < 0 || type >= tokens.num_types) {
    report_bad_index(tokens, token, bad_token_type);
    return -1;
  }
  return type * tokens.vocab_size + id;
}

// The ids of tokens that all are valid and of type 0. The loop is vector code; a negative id counts as a large one.
// Returns false if an id is outside its table.
template <class Id>
inline bool read_plain(const Tokens& tokens, int64_t start, int64_t size, int64_t* __restrict to) {
  using Unsigned = std::make_unsigned_t<Id>;
  const Id* __restrict ids = static_cast<const Id*>(tokens.ids.data) + start;
  Unsigned largest = 0;
  for (int64_t c = 0; c < size; ++c) {
    largest = largest > Unsigned(ids[c]) ? largest : Unsigned(ids[c]);
    to[c] = ids[c];
  }
  return size == 0 || uint64_t(largest) < uint64_t(tokens.vocab_size);
}
inline bool read_plain(const Tokens& tokens, int64_t start, int64_t size, int64_t* to) {
  return tokens.ids.is_int64 ? read_plain<int64_t>(tokens, start, size, to)
                             : read_plain<int32_t>(tokens, start, size, to);
}

// Writes the strip's token of each column of a piece. Returns false, and the index is reported, if one is outside its
// table.
inline bool read_piece(const Tokens& tokens, const Piece& piece, Strip& strip) {
  const int64_t start = tokens.row_start(piece.row);
  for (int64_t first = piece.first; first < piece.last; first += word_tokens) {
    const int64_t token = start + first, size = std::min(word_tokens, piece.last - first);
    const uint64_t bits = valid_bits(tokens, token, size);
    const bool is_whole = bits == low_bits(size);
    int64_t* to = strip.token + piece.in_strip(first);
    strip.has_holes |= !is_whole;
    if (is_whole && !tokens.token_types.data && read_plain(tokens, token, size, to)) continue;
    for (int64_t c = 0; c < size; ++c) {
      const bool valid = bits >> c & 1;
      to[c] = valid ? table_row(tokens, token + c) : -1;
      if (valid && to[c] < 0) return false;
    }
  }
  return true;
}

// Appends columns [begin, end) of a row whose valid columns are `row_columns`.
inline bool append_piece(const Tokens& tokens, const Windows& windows, int64_t row, Columns row_columns, int64_t begin,
                         int64_t end, Strip& strip) {
  Piece& piece = strip.pieces[strip.num_pieces++];
  piece = {row,
           begin,
           end,
           std::max(row_columns.begin, begin - windows.halo()),
           std::min(row_columns.end, end + windows.halo()),
           strip.size};
  if (!read_piece(tokens, piece, strip)) return false;
  strip.size += piece.last - piece.first;
  std::fill(strip.token + strip.size, strip.token + strip.size + strip.gap, -1);
  strip.size += strip.gap;
  return true;
}

// Packs rows [first, last) into the strip and calls pool_strip(), which empties it, whenever it is full and at the end.
// Returns false if an index is outside its table.
template <class PoolStrip>
inline bool pack_rows(const Tokens& tokens, const Windows& windows, int64_t first, int64_t last, Strip& strip,
                      const PoolStrip& pool_strip) {
  strip.clear();
  for (int64_t row = first; row < last; ++row) {
    const Columns columns = valid_columns(tokens, row);
    const int64_t size = columns.end - columns.begin;
    const int64_t parts = size + 2 * strip.gap <= strip.capacity ? 1 : (size + strip_columns - 1) / strip_columns;
    for (int64_t part = 0; part < parts && size > 0; ++part) {
      const int64_t begin = columns.begin + size * part / parts, end = columns.begin + size * (part + 1) / parts;
      const int64_t with_halo =
          std::min(columns.end, end + windows.halo()) - std::max(columns.begin, begin - windows.halo());
      if (!strip.has_room(with_halo)) pool_strip();
      if (!append_piece(tokens, windows, row, columns, begin, end, strip)) return false;
    }
  }
  pool_strip();
  return true;
}

}  // namespace
}  // namespace dendritic_bert
