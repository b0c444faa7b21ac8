// The window layers after the first, as small matrix products over the columns of a strip (window_strip.h):
//   u{j}_t = u{j-1}_t + relu(b_j + sum over k and channels i of u{j-1}_{t + k 2^j}[i] * weight[j - 1, k, i])
// A tile of tokens keeps its sums in registers over all taps and channels. Sixteen channels of a column lie side by
// side (a panel), so that the distance from token to token is a constant whatever the number of channels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "simd.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

constexpr int panel = 16;
constexpr int panel_vectors = panel / lanes;
// The largest tile: its sums, the weights that they share and one token's value fit the registers, which are 32 vectors
// of 16 floats, 16 of 8, or 16 of 4.
constexpr int tile_tokens = lanes == 16 ? 12 : lanes == 8 ? 6 : 3;
constexpr int tile_panels = lanes == 16 ? 2 : 1;
// One tile: its first token's column in each array, and the taps from k_first to k_last, which lie `dilation` columns
// apart. The pointers are to the panel that the tile begins with.
template <class Operand, class Weight>
struct Tile {
  const Operand* in;      // [panels, columns, 16]
  const Weight* weight;   // [R, channels, channels], of the tap at offset 0
  const float* bias;      // [channels]
  const float* residual;  // [panels, columns, 16]
  float* out;             // [panels, columns, 16]
  int64_t panel_stride;   // elements from panel to panel of in, residual and out
  int64_t channels, dilation, k_first, k_last;
};

template <int num_tokens, int num_vectors, class AnyTile>
__attribute__((always_inline)) inline void start_tile(const AnyTile& tile, Vec (&total)[num_tokens][num_vectors]) {
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < num_vectors; ++v) total[t][v] = load(tile.bias + v * lanes);
}

// Adds relu(sums) to the residual of a tile.
template <int num_tokens, int num_vectors, class AnyTile>
__attribute__((always_inline)) inline void finish_tile(const AnyTile& tile,
                                                       const Vec (&total)[num_tokens][num_vectors]) {
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < num_vectors; ++v) {
      const int64_t at = v / panel_vectors * tile.panel_stride + t * panel + v % panel_vectors * lanes;
      store(tile.out + at, load(tile.residual + at) + at_least(0.0f, total[t][v]));
    }
}

struct FloatProduct {
  using Operand = float;
  using Weight = float;
  static constexpr int64_t weights_per_output = 1;  // from an output's weights to the next one's

  template <int num_tokens, int num_panels>
  __attribute__((noinline)) static void multiply(const Tile<float, float>& tile) {
    constexpr int num_vectors = num_panels * panel_vectors;
    Vec total[num_tokens][num_vectors];
    start_tile(tile, total);
    for (int64_t k = tile.k_first; k <= tile.k_last; ++k) {
      const float* weight = tile.weight + k * tile.channels * tile.channels;
      const float* in = tile.in + k * tile.dilation * panel;
      for (int64_t first = 0; first < tile.channels; first += panel, in += tile.panel_stride)
        for (int i = 0; i < panel; ++i, weight += tile.channels) {
          Vec w[num_vectors];
#pragma GCC unroll 4
          for (int v = 0; v < num_vectors; ++v) w[v] = load(weight + v * lanes);
#pragma GCC unroll 16
          for (int t = 0; t < num_tokens; ++t) {
            const Vec x = broadcast(in[t * panel + i]);
#pragma GCC unroll 4
            for (int v = 0; v < num_vectors; ++v) total[t][v] += x * w[v];
          }
        }
    }
    finish_tile(tile, total);
  }
};

// The tile of so many tokens, 1 to tile_tokens.
template <class Product, int num_panels, class AnyTile>
inline void multiply_tile(int64_t num_tokens, const AnyTile& tile) {
  switch (num_tokens) {
    case 1: return Product::template multiply<1, num_panels>(tile);
    case 2: return Product::template multiply<2, num_panels>(tile);
    case 3: return Product::template multiply<3, num_panels>(tile);
#if defined(__AVX2__)
    case 4: return Product::template multiply<4, num_panels>(tile);
    case 5: return Product::template multiply<5, num_panels>(tile);
    case 6: return Product::template multiply<6, num_panels>(tile);
#endif
#if defined(__AVX512F__)
    case 7: return Product::template multiply<7, num_panels>(tile);
    case 8: return Product::template multiply<8, num_panels>(tile);
    case 9: return Product::template multiply<9, num_panels>(tile);
    case 10: return Product::template multiply<10, num_panels>(tile);
    case 11: return Product::template multiply<11, num_panels>(tile);
    case 12: return Product::template multiply<12, num_panels>(tile);
#endif
  }
}

// The next tiles end here at the latest, so that they leave out the taps that lie outside the row: where a tap enters
// or leaves it, counted from the row's beginning and its end. With a dilation of 2 the parts would be so short that
// their additions wait for one another (two multiply-adds start in every cycle and take four): there the tiles go over
// the edges, by up to 2 * radius columns, which hold zeros.
constexpr int64_t least_dilation_to_cut = 4;
inline int64_t next_cut(int64_t column, int64_t size, int64_t dilation, int64_t radius) {
  if (dilation < least_dilation_to_cut) return size;
  int64_t cut = size;
  for (int64_t edge = dilation; edge <= radius * dilation && edge < size; edge += dilation) {
    if (edge > column) cut = std::min(cut, edge);
    if (size - edge > column) cut = std::min(cut, size - edge);
  }
  return cut;
}

// Layer j (1 <= j < J) for columns [columns.begin, columns.end) of a piece.
template <class Product>
inline void multiply_columns(const Windows& windows, int64_t layer, const typename Product::Weight* weight,
                             const Piece& piece, Columns columns, int64_t panel_stride,
                             const typename Product::Operand* in, const float* residual, float* out) {
  const int64_t channels = windows.channels, radius = windows.radius, dilation = Windows::power_of_2(layer);
  const int64_t size = piece.last - piece.first, end = columns.end - piece.start;
  const auto* of_layer = weight + ((layer - 1) * (2 * radius + 1) + radius) * channels * channels;
  const float* bias = windows.bias + layer * channels;
  Tile<typename Product::Operand, typename Product::Weight> tile;
  tile.panel_stride = panel_stride;
  tile.channels = channels;
  tile.dilation = dilation;
  for (int64_t column = columns.begin - piece.start; column < end;) {
    const int64_t cut = std::min(end, next_cut(column, size, dilation, radius));
    // As few tiles as there can be, of nearly the same size. A division of 32 bits takes half of one of 64.
    const uint32_t tiles = uint32_t(cut - column + tile_tokens - 1) / tile_tokens;
    const uint32_t least = uint32_t(cut - column) / tiles, larger_tiles = uint32_t(cut - column) % tiles;
    for (uint32_t i = 0; i < tiles; ++i) {
      const int64_t tokens = least + (i < larger_tiles), at = (piece.start + column) * panel;
      tile.k_first = std::max(-radius, -Windows::over_power_of_2(column + tokens - 1, layer));
      tile.k_last = std::min(radius, Windows::over_power_of_2(size - 1 - column, layer));
      tile.in = in + at;
      for (int64_t o = 0; o < channels;) {
        const bool is_wide = o + tile_panels * panel <= channels;
        tile.weight = of_layer + o * Product::weights_per_output;
        tile.bias = bias + o;
        tile.residual = residual + o / panel * panel_stride + at;
        tile.out = out + o / panel * panel_stride + at;
        if (is_wide) multiply_tile<Product, tile_panels>(tokens, tile);
        else multiply_tile<Product, 1>(tokens, tile);
        o += is_wide ? tile_panels * panel : panel;
      }
      column += tokens;
    }
  }
}

inline void clear_columns(float* u, int64_t begin, int64_t end, int64_t panel_stride, int64_t channels) {
  for (int64_t p = 0; p < channels / panel; ++p)
    for (int64_t i = begin * panel; i < end * panel; i += lanes) store(u + p * panel_stride + i, broadcast(0));
}

// Columns of a piece that have no valid token are zero after every layer.
inline void clear_holes(const Windows& windows, const Strip& strip, Columns columns, int64_t panel_stride, float* u) {
  if (!strip.has_holes) return;
  for (int64_t c = columns.begin; c < columns.end; ++c)
    if (strip.token[c] < 0) clear_columns(u, c, c + 1, panel_stride, windows.channels);
}

// Window layers with float32 weights.
struct FloatLayers {
  const Windows& windows;

  explicit FloatLayers(const Windows& of) : windows(of) {}

  struct Scratch {
    Buffer u, next;  // [panels, columns, 16]
    explicit Scratch(int64_t size) : u(size), next(size) {}

    // Sets columns [begin, end) to zero.
    void clear(int64_t begin, int64_t end, int64_t panel_stride, int64_t channels) {
      clear_columns(u, begin, end, panel_stride, channels);
      clear_columns(next, begin, end, panel_stride, channels);
    }
  };

  // Layers 1 to J - 1 of a strip, from u of layer 0 in scratch.u. Returns u of the last one.
  const float* run(const Strip& strip, int64_t panel_stride, Scratch& scratch) const {
    float *u = scratch.u, *next = scratch.next;
    for (int64_t layer = 1; layer < windows.num_layers; ++layer, std::swap(u, next))
      for (int64_t p = 0; p < strip.num_pieces; ++p) {
        const Columns columns = columns_after(windows, strip.pieces[p], layer);
        multiply_columns<FloatProduct>(windows, layer, static_cast<const float*>(windows.weight), strip.pieces[p],
                                       columns, panel_stride, u, u, next);
        clear_holes(windows, strip, columns, panel_stride, next);
      }
    return u;
  }
};

}  // namespace
}  // namespace dendritic_bert
