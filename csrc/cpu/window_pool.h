// Training's forward with windows: ids to pooled rows [B, H + M].
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "window_pool_strip.h"

namespace dendritic_bert {
namespace {

inline void window_pool(const WindowPoolArguments& arguments, float* pooled) {
  const PaddedWindows padded(arguments);
  const WindowPoolRows rows{arguments, padded};
  const int64_t channels = arguments.hidden_size + arguments.dendrites;
  for_row_ranges(
      rows, num_row_ranges(rows.tokens), [&](int64_t, int64_t first, int64_t last, WindowPoolScratch& scratch) {
    std::fill(pooled + first * channels, pooled + last * channels, 0.0f);  // an empty row is in no strip
    Buffer sums(rows.pooled_size);
    pack_rows(rows.tokens, rows.windows, first, last, scratch.strip, [&] {
      rows.run(scratch);
      for (int64_t p = 0; p < scratch.strip.num_pieces; ++p) {
        const Piece& piece = scratch.strip.pieces[p];
        float* const row = pooled + piece.row * channels;
        rows.pool(piece, scratch, sums);
        padded.from_padded(arguments, sums, row);
        if (arguments.p_pool > 0) rows.drop_pooled(piece.row, scratch.keep, row);
      }
      scratch.strip.clear();
    });
  });
}

}  // namespace
}  // namespace dendritic_bert
