// A window layer in int8 over the columns of a strip (window_strip.h); kernels/reference_int8.py has its formula. As in
// window_layers.h, a tile of tokens keeps its sums in registers over all taps and channels, and sixteen channels of a
// column lie side by side.
#pragma once

#include <algorithm>
#include <cstdint>

#include "window_int8_arguments.h"
#include "window_int8_simd.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

// One tile: its first token's column in each array, and the taps from k_first to k_last, which lie `dilation` columns
// apart. The pointers to what belongs to outputs are to the panel that the tile begins with.
struct Int8Tile {
  const uint8_t* in;     // [panels, columns, 16]
  const int8_t* weight;  // [R, channels / 4, channels, 4], of the tap at offset 0
  const int32_t* bias;   // [channels]
  Int8Output output;     // [channels] each
  int16_t* u;            // [panels, columns, 16]
  uint8_t* next_in;      // [panels, columns, 16]
  int64_t panel_stride;  // elements from panel to panel of in, u and next_in
  int64_t channels, dilation, k_first, k_last;
};

template <int num_tokens, int num_panels>
__attribute__((noinline)) void multiply_int8_tile(const Int8Tile& tile) {
  Int8Sums total[num_tokens][num_panels];
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t)
#pragma GCC unroll 2
    for (int p = 0; p < num_panels; ++p) total[t][p] = load_sums(tile.bias + p * panel);
  for (int64_t k = tile.k_first; k <= tile.k_last; ++k) {
    const int8_t* weight = tile.weight + k * tile.channels * tile.channels;
    const uint8_t* in = tile.in + k * tile.dilation * panel;
    for (int64_t first = 0; first < tile.channels; first += panel, in += tile.panel_stride)
#pragma GCC unroll 1
      for (int i = 0; i < panel; i += 4, weight += 4 * tile.channels) {
        const auto w0 = load_weight(weight), w1 = load_weight(weight + (num_panels - 1) * 4 * panel);
#pragma GCC unroll 16
        for (int t = 0; t < num_tokens; ++t) {
          const Four x = broadcast_four(in + t * panel + i);
          add_products(total[t][0], x, w0);
          if constexpr (num_panels == 2) add_products(total[t][1], x, w1);
        }
      }
  }
  const Int8Output output = tile.output;  // copies, which the stores below cannot change
  int16_t* const u = tile.u;
  uint8_t* const next_in = tile.next_in;
  const int64_t panel_stride = tile.panel_stride;
#if defined(__AVX512BW__)
  if (num_panels == 2) {
#pragma GCC unroll 16
    for (int t = 0; t < num_tokens; ++t)
      finish_wide(total[t][0], total[t][num_panels - 1], output, u + t * panel, next_in + t * panel, panel_stride);
    return;
  }
#endif
#pragma GCC unroll 2
  for (int p = 0; p < num_panels; ++p)
#pragma GCC unroll 16
    for (int t = 0; t < num_tokens; ++t) {
      const int64_t at = p * panel_stride + t * panel, of = p * panel;
      finish_sums(
          total[t][p], {output.shift + of, output.scale + of, output.next_input_scale + of}, u + at, next_in + at);
    }
}

template <int num_panels>
inline void multiply_int8_tokens(const Int8Tile& tile, int64_t num_tokens) {
  switch (num_tokens) {
    case 1: return multiply_int8_tile<1, num_panels>(tile);
#if defined(__AVX2__)
    case 2: return multiply_int8_tile<2, num_panels>(tile);
    case 3: return multiply_int8_tile<3, num_panels>(tile);
    case 4: return multiply_int8_tile<4, num_panels>(tile);
#endif
#if defined(__AVXVNNI__) || defined(__AVX512BW__)
    case 5: return multiply_int8_tile<5, num_panels>(tile);
    case 6: return multiply_int8_tile<6, num_panels>(tile);
#endif
#if defined(__AVX512BW__)
    case 7: return multiply_int8_tile<7, num_panels>(tile);
    case 8: return multiply_int8_tile<8, num_panels>(tile);
    case 9: return multiply_int8_tile<9, num_panels>(tile);
    case 10: return multiply_int8_tile<10, num_panels>(tile);
    case 11: return multiply_int8_tile<11, num_panels>(tile);
    case 12: return multiply_int8_tile<12, num_panels>(tile);
#endif
    default: return;
  }
}

// Layer j (1 <= j < J) for columns [columns.begin, columns.end) of a piece: reads `in`, adds to u and writes next_in,
// which the layer after it reads.
__attribute__((noinline)) inline void multiply_int8_columns(const Int8Windows& windows, int64_t layer,
                                                            const Piece& piece, Columns columns, int64_t panel_stride,
                                                            const uint8_t* in, int16_t* u, uint8_t* next_in) {
  const Windows& shape = windows.shape;
  const int64_t channels = shape.channels, radius = shape.radius, dilation = Windows::power_of_2(layer);
  const int shift = int(std::min<int64_t>(layer, 40));
  const int64_t size = piece.last - piece.first, end = columns.end - piece.start, of = (layer - 1) * channels;
  // The last layer's inputs of a next one are not read; some scale stands for theirs.
  const int16_t* next_scale = windows.input_scale + (layer + 1 < shape.num_layers ? of + channels : of);
  const int8_t* weight = windows.weight + ((layer - 1) * (2 * radius + 1) + radius) * channels * channels;
  for (int64_t column = columns.begin - piece.start; column < end;) {
    const int64_t cut = std::min(end, next_cut(column, size, dilation, radius));
    // Tiles of nearly the same size. Division by a variable takes as long as many products, and is done once here.
    const uint32_t rest = uint32_t(cut - column), count = (rest + int8_tile_tokens - 1) / int8_tile_tokens;
    const uint32_t least = rest / count, larger = rest % count;
    for (uint32_t i = 0; i < count; ++i) {
      const int64_t tokens = least + (i < larger), at = (piece.start + column) * panel;
      Int8Tile tile;
      tile.panel_stride = panel_stride;
      tile.channels = channels;
      tile.dilation = dilation;
      tile.k_first = std::max(-radius, -((column + tokens - 1) >> shift));
      tile.k_last = std::min(radius, (size - 1 - column) >> shift);
      tile.in = in + at;
      for (int64_t o = 0; o < channels;) {
        const bool is_wide = o + int8_tile_panels * panel <= channels;
        tile.weight = weight + 4 * o;
        tile.bias = windows.bias + of + channels + o;
        tile.output = {windows.output_shift + of + o, windows.output_scale + of + o, next_scale + o};
        tile.u = u + o / panel * panel_stride + at;
        tile.next_in = next_in + o / panel * panel_stride + at;
        if (is_wide) multiply_int8_tokens<int8_tile_panels>(tile, tokens);
        else multiply_int8_tokens<1>(tile, tokens);
        o += is_wide ? int8_tile_panels * panel : panel;
      }
      column += tokens;
    }
  }
}

}  // namespace
}  // namespace dendritic_bert
