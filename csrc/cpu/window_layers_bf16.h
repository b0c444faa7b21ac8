// The window layers with bfloat16 weights. The other factor, u, is rounded to bfloat16 before every layer; sums, bias
// and residual are float32. Where the processor multiplies bfloat16 (AVX512-BF16's vdpbf16ps adds up the products of
// two channels at a time), it does; elsewhere the rounded factors are multiplied in float32.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "simd.h"
#include "window_layers.h"

namespace dendritic_bert {
namespace {

// x as bfloat16 numbers in float32: rounded to nearest even, as torch does. A NaN stays as it is.
inline Vec round_to_bfloat16(Vec x) {
  typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec))));
  const Bits bits = bit_cast<Bits>(x), is_nan = (Bits)(x != x);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  return bit_cast<Vec>((is_nan & bits) | (~is_nan & rounded));
}

struct EmulatedBfloat16Product : FloatProduct {
  static void pack(const bfloat16* weight, int64_t, int64_t size, float* packed) {
    for (int64_t i = 0; i < size; ++i) packed[i] = to_float(weight[i]);
  }
  static void round(const float* u, int64_t size, float* operand) {
    for (int64_t i = 0; i < size; i += lanes) store(operand + i, round_to_bfloat16(load(u + i)));
  }
};

#if defined(__AVX512F__)
// The functions say which instructions they need beyond those that this file is compiled for.
struct Bfloat16Product {
  using Operand = bfloat16;
  using Weight = bfloat16;
  static constexpr int64_t weights_per_output = 2;

  // From [in, out] to [in / 2, out, 2]: the weights of two input channels side by side.
  static void pack(const bfloat16* weight, int64_t channels, int64_t size, bfloat16* packed) {
    for (int64_t first = 0; first < size; first += 2 * channels)
      for (int64_t o = 0; o < channels; ++o) {
        packed[first + 2 * o] = weight[first + o];
        packed[first + 2 * o + 1] = weight[first + channels + o];
      }
  }

  __attribute__((target("avx512bf16"))) static void round(const float* u, int64_t size, bfloat16* operand) {
    for (int64_t i = 0; i < size; i += lanes)
      _mm256_storeu_si256((__m256i*)(operand + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(u + i)));
  }

  template <int num_tokens, int num_panels>
  __attribute__((noinline, target("avx512bf16"))) static void multiply(const Tile<bfloat16, bfloat16>& tile) {
    Vec total[num_tokens][num_panels];
    start_tile(tile, total);
    for (int64_t k = tile.k_first; k <= tile.k_last; ++k) {
      const bfloat16* weight = tile.weight + k * tile.channels * tile.channels;
      const bfloat16* in = tile.in + k * tile.dilation * panel;
      for (int64_t first = 0; first < tile.channels; first += panel, in += tile.panel_stride)
        for (int i = 0; i < panel; i += 2, weight += 2 * tile.channels) {
          __m512bh w[num_panels];
#pragma GCC unroll 4
          for (int v = 0; v < num_panels; ++v) w[v] = (__m512bh)_mm512_loadu_si512(weight + v * 2 * panel);
#pragma GCC unroll 16
          for (int t = 0; t < num_tokens; ++t) {
            int32_t two_channels;
            std::memcpy(&two_channels, in + t * panel + i, sizeof(two_channels));
            const __m512bh x = (__m512bh)_mm512_set1_epi32(two_channels);
#pragma GCC unroll 4
            for (int v = 0; v < num_panels; ++v) total[t][v] = _mm512_dpbf16_ps(total[t][v], x, w[v]);
          }
        }
    }
    finish_tile(tile, total);
  }
};
#endif

template <class Product>
struct Bfloat16Layers {
  using Operand = typename Product::Operand;
  static constexpr int64_t least_gap = 0;
  const Windows& windows;
  Buffer packed;

  explicit Bfloat16Layers(const Windows& of) : windows(of), packed(num_weights() * int64_t(sizeof(Operand)) / 4) {
    Product::pack(static_cast<const bfloat16*>(windows.weight), windows.channels, num_weights(),
                  reinterpret_cast<Operand*>(packed.data));
  }

  struct Scratch {
    Buffer u, rounded;  // [panels, columns, 16]
    explicit Scratch(int64_t size) : u(size), rounded(size * int64_t(sizeof(Operand)) / 4) {}

    // Sets columns [begin, end) to zero.
    void clear(int64_t begin, int64_t end, int64_t panel_stride, int64_t channels) {
      clear_columns(u, begin, end, panel_stride, channels);
    }
  };

  const float* run(const Strip& strip, int64_t panel_stride, Scratch& scratch) const {
    Operand* rounded = reinterpret_cast<Operand*>(scratch.rounded.data);
    for (int64_t layer = 1; layer < windows.num_layers; ++layer) {
      for (int64_t p = 0; p < windows.channels / panel; ++p)
        Product::round(scratch.u + p * panel_stride, strip.size * panel, rounded + p * panel_stride);
      multiply_layer<Product>(windows, layer, reinterpret_cast<const Operand*>(packed.data), strip, panel_stride,
                              rounded, scratch.u, scratch.u);
      clear_holes(windows, strip, panel_stride, scratch.u);
    }
    return scratch.u;
  }

 private:
  int64_t num_weights() const {
    return std::max<int64_t>(0, windows.num_layers - 1) * (2 * windows.radius + 1) * windows.channels *
           windows.channels;
  }
};

}  // namespace
}  // namespace dendritic_bert
