// The window layers with bfloat16 weights on AMX. One instruction adds to the sums of 16 tokens and 16 outputs the
// products of 32 inputs: 8,192 multiply-adds in 16 cycles, for which two units of AVX-512 take 256. u is rounded as in
// window_layers_bf16.h; sums, bias and residual are float32.
#pragma once

#include "amx.h"

#ifdef DENDRITIC_BERT_AMX

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "simd.h"
#include "window_layers.h"
#include "window_strip.h"
#include "window_tiles_amx.h"

namespace dendritic_bert {
namespace {

static_assert(lanes == tile_rows, "a vector is a row of a tile of sums");

constexpr int64_t tile_inputs = tile_row_bytes / sizeof(bfloat16);
constexpr int64_t weight_tile_size = tile_inputs * panel;

struct AmxLayers {
  static constexpr int64_t least_gap = amx_gap;
  const Windows& windows;
  const int64_t num_blocks = (windows.channels + tile_inputs - 1) / tile_inputs;           // of inputs
  const int64_t weight_size = num_blocks * weight_tile_size * (windows.channels / panel);  // of a tap
  Buffer packed;                                                                           // [J - 1, R, weight_size]

  explicit AmxLayers(const Windows& of) : windows(of), packed(num_weights() * weight_size / 2) {
    const bfloat16* weight = static_cast<const bfloat16*>(windows.weight);
    bfloat16* to = packed_weights();
    for (int64_t i = 0; i < num_weights(); ++i, weight += windows.channels * windows.channels, to += weight_size)
      pack(weight, to);
  }

  struct Scratch {
    Buffer u;        // [panels, columns, 16]
    Buffer rounded;  // [num_blocks, columns, 32] in bfloat16, zeros where there is no channel or no row
    Tiles tiles;
    // A block of 32 bfloat16 takes as much as a panel of 16 floats, and there are at most as many.
    explicit Scratch(int64_t size) : u(size), rounded(size) {}

    // Sets columns [begin, end) to zero, of u as well: the gate's products read up to seven of them behind a row, where
    // subnormal numbers made the op take 1.5 times as long (Xeon).
    void clear(int64_t begin, int64_t end, int64_t panel_stride, int64_t channels) {
      clear_columns(u, begin, end, panel_stride, channels);
      clear_columns(rounded, begin, end, panel_stride, (channels + tile_inputs - 1) / tile_inputs * panel);
    }
  };

  const float* run(const Strip& strip, int64_t panel_stride, Scratch& scratch) const {
    for (int64_t layer = 1; layer < windows.num_layers; ++layer) {
      for (int64_t p = 0; p < strip.num_pieces; ++p)
        round(columns_after(windows, strip.pieces[p], layer - 1), panel_stride, scratch);
      for (int64_t o = 0; o < windows.channels; o += 2 * panel)
        o + panel < windows.channels ? multiply_outputs<2>(layer, o, strip, panel_stride, scratch)
                                     : multiply_outputs<1>(layer, o, strip, panel_stride, scratch);
      clear_holes(windows, strip, panel_stride, scratch.u);
    }
    return scratch.u;
  }

 private:
  int64_t num_weights() const { return std::max<int64_t>(0, windows.num_layers - 1) * (2 * windows.radius + 1); }
  bfloat16* packed_weights() const { return reinterpret_cast<bfloat16*>(packed.data); }

  // A matrix from [in, out] to tiles [in / 32, out / 16] of [16 pairs of inputs, 16 outputs, 2], zeros below the last
  // input.
  void pack(const bfloat16* weight, bfloat16* to) const {
    static constexpr bfloat16 zeros[panel] = {};
    const int64_t channels = windows.channels;
    for (int64_t block = 0; block < num_blocks; ++block)
      for (int64_t o = 0; o < channels; o += panel)
        for (int64_t i = block * tile_inputs; i < (block + 1) * tile_inputs; i += 2, to += 2 * panel) {
          const bfloat16* even = i < channels ? weight + i * channels + o : zeros;
          const bfloat16* odd = i < channels ? even + channels : zeros;
          for (int64_t c = 0; c < panel; ++c) {
            to[2 * c] = even[c];
            to[2 * c + 1] = odd[c];
          }
        }
  }

  // Rounds u of these columns. The second half of a last block without channels becomes zeros.
  __attribute__((target("avx512bf16"))) void round(Columns columns, int64_t panel_stride, Scratch& scratch) const {
    for (int64_t block = 0; block < num_blocks; ++block) {
      const float* first = scratch.u + 2 * block * panel_stride;
      const float* second = (2 * block + 1) * panel < windows.channels ? first + panel_stride : nullptr;
      float* to = scratch.rounded + block * panel_stride;
      for (int64_t i = columns.begin * panel; i < columns.end * panel; i += panel) {
        const Vec last = second ? load(second + i) : broadcast(0);
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(last, load(first + i)));
      }
    }
  }

  // Layer j (1 <= j < J) of a strip, for the outputs of num_panels panels from o on, two tiles of tokens at a time,
  // which share the tiles of weights.
  template <int num_panels>
  void multiply_outputs(int64_t layer, int64_t o, const Strip& strip, int64_t panel_stride, Scratch& scratch) const {
    TokenTile tiles[2];
    int count = 0;
    for_token_tiles(windows, layer, strip, [&](const TokenTile& tile) {
      tiles[count++] = tile;
      if (count < 2) return;
      multiply<2, num_panels>(layer, o, tiles, panel_stride, scratch);
      count = 0;
    });
    if (count > 0) multiply<1, num_panels>(layer, o, tiles, panel_stride, scratch);
  }

  // The sums are tiles 0 to 3, two for each tile of tokens; 4 and 5 are tokens, 6 and 7 weights.
  template <int num_tiles, int num_panels>
  __attribute__((noinline)) void multiply(int64_t layer, int64_t o, const TokenTile* tiles, int64_t panel_stride,
                                          Scratch& scratch) const {
    const float* bias = windows.bias + layer * windows.channels + o;
    start<0, num_panels>(bias);
    if constexpr (num_tiles == 2) start<1, num_panels>(bias);
    const int64_t dilation = Windows::power_of_2(layer), tiles_of_block = windows.channels / panel;
    const bfloat16* of_layer = packed_weights() + (layer - 1) * (2 * windows.radius + 1) * weight_size;
    const TokenTile &one = tiles[0], &other = tiles[num_tiles - 1];
    for (int64_t k = std::min(one.k_first, other.k_first); k <= std::max(one.k_last, other.k_last); ++k) {
      const bfloat16* weight = of_layer + (windows.radius + k) * weight_size + o / panel * weight_tile_size;
      const float* in = scratch.rounded + k * dilation * panel;
      for (int64_t block = 0; block < num_blocks; ++block) {
        load_tile<6>(weight, tile_row_bytes);
        if constexpr (num_panels == 2) load_tile<7>(weight + weight_tile_size, tile_row_bytes);
        if (one.has_tap(k)) add_products<0, num_panels>(in + one.column * panel);
        if constexpr (num_tiles == 2)
          if (other.has_tap(k)) add_products<1, num_panels>(in + other.column * panel);
        weight += tiles_of_block * weight_tile_size;
        in += panel_stride;
      }
    }
    float* u = scratch.u + o / panel * panel_stride;
    alignas(tile_row_bytes) float sums[num_tiles][num_panels][tile_rows * panel];
    store_sums<0, num_panels>(sums[0]);
    if constexpr (num_tiles == 2) store_sums<1, num_panels>(sums[1]);
    for (int t = 0; t < num_tiles; ++t)
      for (int p = 0; p < num_panels; ++p)
        finish(sums[t][p], tiles[t].tokens * panel, u + p * panel_stride + tiles[t].column * panel);
  }

  // Sums begin with the bias, the same row sixteen times.
  template <int t, int num_panels>
  static void start(const float* bias) {
    load_tile<2 * t>(bias, 0);
    if constexpr (num_panels == 2) load_tile<2 * t + 1>(bias + panel, 0);
  }

  template <int t, int num_panels>
  static void add_products(const float* tokens) {
    load_tile<4 + t>(tokens, tile_row_bytes);
    multiply_bfloat16_tiles<2 * t, 4 + t, 6>();
    if constexpr (num_panels == 2) multiply_bfloat16_tiles<2 * t + 1, 4 + t, 7>();
  }

  template <int t, int num_panels>
  static void store_sums(float (&sums)[num_panels][tile_rows * panel]) {
    store_tile<2 * t>(sums[0], tile_row_bytes);
    if constexpr (num_panels == 2) store_tile<2 * t + 1>(sums[1], tile_row_bytes);
  }

  // Adds relu(sums) to u.
  static void finish(const float* sums, int64_t size, float* u) {
    for (int64_t i = 0; i < size; i += panel) store(u + i, load(u + i) + at_least(0.0f, load(sums + i)));
  }
};

}  // namespace
}  // namespace dendritic_bert

#endif
