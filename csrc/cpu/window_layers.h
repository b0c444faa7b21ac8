// The window layers after the first, as small matrix products over the columns of a strip (window_strip.h):
//   u{j}_t = u{j-1}_t + relu(b_j + sum over k and channels i of u{j-1}_{t + k 2^j}[i] * weight[j - 1, k, i])
// A tile of tokens keeps its sums in registers over all taps and channels. Sixteen channels of a column lie side by
// side (a panel), so that the distance from token to token is a constant whatever the number of channels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "arguments.h"
#include "buffer.h"
#include "simd.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

constexpr int panel = 16;
constexpr int panel_vectors = panel / lanes;
// The panels of outputs that a tile computes, where there are as many, and the tokens of the largest one: its sums, and
// either the weights of an input and one token's value or one vector of weights and the tokens' values, fit the
// registers, which are 32 vectors of 16 floats, 16 of 8, or 16 of 4.
constexpr int tile_panels = lanes == 4 ? 1 : 2;
template <int num_panels>
constexpr int tile_tokens = lanes == 16 ? 12 : 12 / (num_panels * panel_vectors);
// One tile: its first token's column in each array, and the taps from k_first to k_last, which lie `dilation` columns
// apart. The pointers are to the panel that the tile begins with.
template <class Operand, class Weight>
struct Tile {
  const Operand* in;      // [panels, columns, 16]
  const Weight* weight;   // [R, channels, outputs], of the tap at offset 0
  const float* bias;      // [outputs]
  const float* residual;  // [panels, columns, 16]
  float* out;             // [panels, columns, 16]
  int64_t panel_stride;   // elements from panel to panel of in, residual and out
  int64_t channels;       // of in
  int64_t outputs;        // channels of out; as many as those of in, except in layer 0 of training
  int64_t dilation, k_first, k_last;
};

template <int num_tokens, int num_vectors, class AnyTile>
__attribute__((always_inline)) inline void start_tile(const AnyTile& tile, Vec (&total)[num_tokens][num_vectors]) {
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < num_vectors; ++v) total[t][v] = load(tile.bias + v * lanes);
}

// What becomes of a tile's sums.
struct AddRelu {
  static Vec apply(const float* residual, Vec total) { return load(residual) + at_least(0.0f, total); }
};
struct Relu {
  static Vec apply(const float*, Vec total) { return at_least(0.0f, total); }
};
struct Add {
  static Vec apply(const float* residual, Vec total) { return load(residual) + total; }
};

template <class Finish = AddRelu, int num_tokens, int num_vectors, class AnyTile>
__attribute__((always_inline)) inline void finish_tile(const AnyTile& tile,
                                                       const Vec (&total)[num_tokens][num_vectors]) {
  // Copies, since a store of a vector may change anything in memory as far as GCC knows.
  const float* const residual = tile.residual;
  float* const out = tile.out;
  const int64_t panel_stride = tile.panel_stride;
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < num_vectors; ++v) {
      const int64_t at = v / panel_vectors * panel_stride + t * panel + v % panel_vectors * lanes;
      store(out + at, Finish::apply(residual + at, total[t][v]));
    }
}

template <class Finish>
struct FloatProductThen {
  using Operand = float;
  using Weight = float;
  static constexpr int64_t weights_per_output = 1;  // from an output's weights to the next one's

  template <int num_tokens, int num_panels>
  __attribute__((noinline)) static void multiply(const Tile<float, float>& tile) {
    constexpr int num_vectors = num_panels * panel_vectors;
    Vec total[num_tokens][num_vectors];
    start_tile(tile, total);
    for (int64_t k = tile.k_first; k <= tile.k_last; ++k) {
      const float* weight = tile.weight + k * tile.channels * tile.outputs;
      const float* in = tile.in + k * tile.dilation * panel;
      for (int64_t first = 0; first < tile.channels; first += panel, in += tile.panel_stride)
        for (int i = 0; i < panel; ++i, weight += tile.outputs) {
          if constexpr (num_vectors > num_tokens) {
            Vec x[num_tokens];
#pragma GCC unroll 4
            for (int t = 0; t < num_tokens; ++t) x[t] = broadcast(in[t * panel + i]);
#pragma GCC unroll 4
            for (int v = 0; v < num_vectors; ++v) {
              const Vec w = load(weight + v * lanes);
#pragma GCC unroll 4
              for (int t = 0; t < num_tokens; ++t) total[t][v] += x[t] * w;
            }
          } else {
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
    }
    finish_tile<Finish>(tile, total);
  }
};
using FloatProduct = FloatProductThen<AddRelu>;

// The tiles of 1, 2, ... tokens.
template <class Product, int num_panels, int... n, class AnyTile>
inline void multiply_tile(std::integer_sequence<int, n...>, int64_t num_tokens, const AnyTile& tile) {
  static constexpr void (*tiles[])(const AnyTile&) = {Product::template multiply<n + 1, num_panels>...};
  tiles[num_tokens - 1](tile);
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

// Calls body(first column in the strip, tokens, k_first, k_last) for the tiles of layer j of a strip:
// between two cuts as few as there can be, of nearly the same size. The taps of a tile are those that lie inside the
// row for one of its tokens at least.
template <int largest, class Body>
inline void for_tiles(const Windows& windows, int64_t layer, const Strip& strip, const Body& body) {
  const int64_t radius = windows.radius, dilation = Windows::power_of_2(layer);
  for (int64_t p = 0; p < strip.num_pieces; ++p) {
    const Piece& piece = strip.pieces[p];
    const Columns columns = columns_after(windows, piece, layer);
    const int64_t size = piece.last - piece.first, end = columns.end - piece.start;
    for (int64_t column = columns.begin - piece.start; column < end;) {
      // A division by `tiles`, even one of 32 bits, takes longer than the rest of this loop.
      const uint32_t rest = uint32_t(std::min(end, next_cut(column, size, dilation, radius)) - column);
      const uint32_t tiles = (rest + largest - 1) / largest;
      const uint32_t least = tiles == 1 ? rest : tiles == 2 ? rest / 2 : rest / tiles;
      const uint32_t larger_tiles = rest - tiles * least;
      for (uint32_t i = 0; i < tiles; ++i) {
        const int64_t tokens = least + (i < larger_tiles);
        body(piece.start + column, tokens, std::max(-radius, -Windows::over_power_of_2(column + tokens - 1, layer)),
             std::min(radius, Windows::over_power_of_2(size - 1 - column, layer)));
        column += tokens;
      }
    }
  }
}

// Layer j of a strip, for the outputs of the panels from o on. The pointers of `whole` are to the strip's first column.
template <class Product, int num_panels, class AnyTile>
inline void multiply_outputs(const Windows& windows, int64_t layer, const Strip& strip, int64_t o,
                             const AnyTile& whole) {
  AnyTile tile = whole;
  tile.weight += o * Product::weights_per_output;
  tile.bias += o;
  const int64_t of_panel = o / panel * whole.panel_stride;
  for_tiles<tile_tokens<num_panels>>(
      windows, layer, strip, [&](int64_t column, int64_t tokens, int64_t k_first, int64_t k_last) {
    tile.in = whole.in + column * panel;
    tile.residual = whole.residual + of_panel + column * panel;
    tile.out = whole.out + of_panel + column * panel;
    tile.k_first = k_first;
    tile.k_last = k_last;
    multiply_tile<Product, num_panels>(std::make_integer_sequence<int, tile_tokens<num_panels>>(), tokens, tile);
  });
}

template <class Product, class AnyTile>
inline void multiply_strip(const Windows& windows, int64_t layer, const Strip& strip, const AnyTile& whole) {
  int64_t o = 0;
  for (; o + tile_panels * panel <= whole.outputs; o += tile_panels * panel)
    multiply_outputs<Product, tile_panels>(windows, layer, strip, o, whole);
  if (o < whole.outputs) multiply_outputs<Product, 1>(windows, layer, strip, o, whole);
}

// Layer j (1 <= j < J) of a strip.
template <class Product>
inline void multiply_layer(const Windows& windows, int64_t layer, const typename Product::Weight* weight,
                           const Strip& strip, int64_t panel_stride, const typename Product::Operand* in,
                           const float* residual, float* out) {
  const int64_t channels = windows.channels;
  Tile<typename Product::Operand, typename Product::Weight> whole;
  whole.in = in;
  whole.weight = weight + ((layer - 1) * (2 * windows.radius + 1) + windows.radius) * channels * channels;
  whole.bias = windows.bias + layer * channels;
  whole.residual = residual;
  whole.out = out;
  whole.panel_stride = panel_stride;
  whole.channels = whole.outputs = channels;
  whole.dilation = Windows::power_of_2(layer);
  multiply_strip<Product>(windows, layer, strip, whole);
}

inline void clear_columns(float* u, int64_t begin, int64_t end, int64_t panel_stride, int64_t channels) {
  for (int64_t p = 0; p < channels / panel; ++p)
    for (int64_t i = begin * panel; i < end * panel; i += lanes) store(u + p * panel_stride + i, broadcast(0));
}

// Columns that belong to no valid token become zeros: those between the rows, and holes.
inline void clear_unused_columns(float* u, const Strip& strip, int64_t panel_stride, int64_t channels) {
  for (int64_t c = 0; c < strip.size; ++c)
    if (strip.token[c] < 0) clear_columns(u, c, c + 1, panel_stride, channels);
}

// Columns of a row that have no valid token are zero after every layer.
inline void clear_holes(const Windows& windows, const Strip& strip, int64_t panel_stride, float* u) {
  if (strip.has_holes) clear_unused_columns(u, strip, panel_stride, windows.channels);
}

// Window layers with float32 weights.
struct FloatLayers {
  static constexpr int64_t least_gap = 0;
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
    for (int64_t layer = 1; layer < windows.num_layers; ++layer, std::swap(u, next)) {
      multiply_layer<FloatProduct>(
          windows, layer, static_cast<const float*>(windows.weight), strip, panel_stride, u, u, next);
      clear_holes(windows, strip, panel_stride, next);
    }
    return u;
  }
};

}  // namespace
}  // namespace dendritic_bert
