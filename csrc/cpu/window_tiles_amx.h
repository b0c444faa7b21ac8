// Which columns of a strip (window_strip.h) the tiles of AMX take: sixteen tokens of a row each.
#pragma once

#include "amx.h"

#ifdef DENDRITIC_BERT_AMX

#include <algorithm>
#include <cstdint>

#include "window_strip.h"

namespace dendritic_bert {
namespace {

// A tile that begins or ends outside of its row reads up to 15 columns there, which have to be zeros.
constexpr int64_t amx_gap = tile_rows - 1;

// Sixteen columns of a row, from `column` of the strip on, of which `tokens` are computed. With a tap outside of
// [k_first, k_last] none of these lies inside the row.
struct TokenTile {
  int64_t column, tokens, k_first, k_last;
  bool has_tap(int64_t k) const { return k_first <= k && k <= k_last; }
};

// Calls body(TokenTile) for the tiles of layer j of a strip.
template <class Body>
inline void for_token_tiles(const Windows& windows, int64_t layer, const Strip& strip, const Body& body) {
  for (int64_t p = 0; p < strip.num_pieces; ++p) {
    const Piece& piece = strip.pieces[p];
    const Columns columns = columns_after(windows, piece, layer);
    for (int64_t column = columns.begin; column < columns.end; column += tile_rows) {
      const int64_t tokens = std::min<int64_t>(tile_rows, columns.end - column);
      const int64_t before = column + tokens - 1 - piece.start, behind = piece.start_of_gap() - 1 - column;
      body(TokenTile{column, tokens, std::max(-windows.radius, -Windows::over_power_of_2(before, layer)),
                     std::min(windows.radius, Windows::over_power_of_2(behind, layer))});
    }
  }
}

}  // namespace
}  // namespace dendritic_bert

#endif
