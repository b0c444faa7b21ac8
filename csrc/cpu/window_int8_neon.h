// The part of window_int8_simd.h for ARM's 64-bit processors. Their products are of two signs or of none: inputs are
// multiplied less 128, as -128 to 127, and a layer adds 128 times its weights (Int8Layers). With the extension for dot
// products an instruction multiplies four int8 of a lane. Without it four products are added up in int16, two of one
// four and two of the next one: the weights of such a group that have one sign sum up to 128 at most (prepare_int8.py),
// so that the products do to 128 * 128 + 128 * 127 = 32,640.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "window_int8_arguments.h"
#include "window_layers.h"

namespace dendritic_bert {
namespace {

#define DENDRITIC_BERT_INT8_SIGNED
constexpr int int8_tile_panels = 1;
constexpr int panel_quads = panel / 4;

struct Int8Sums {
  int32x4_t of[panel_quads];
};
inline Int8Sums load_sums(const int32_t* p) {
  Int8Sums sums;
  for (int q = 0; q < panel_quads; ++q) sums.of[q] = vld1q_s32(p + 4 * q);
  return sums;
}
inline void add(Int8Sums& sums, const int32_t* p) {
  for (int q = 0; q < panel_quads; ++q) sums.of[q] = vaddq_s32(sums.of[q], vld1q_s32(p + 4 * q));
}

// Sixteen inputs less 128.
inline int8x16_t load_inputs(const uint8_t* p) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128))); }

#if defined(__ARM_FEATURE_DOTPROD)

constexpr int int8_tile_tokens = 5;

// Adds the products of one four of sixteen inputs, whose weights for sixteen outputs lie at `weight`.
template <int four, int num_tokens>
__attribute__((always_inline)) inline void add_products_of_four(const int8x16_t (&x)[num_tokens], const int8_t* weight,
                                                                Int8Sums (&total)[num_tokens][1]) {
#pragma GCC unroll 4
  for (int q = 0; q < panel_quads; ++q) {
    const int8x16_t w = vld1q_s8(weight + 16 * q);
#pragma GCC unroll 8
    for (int t = 0; t < num_tokens; ++t) total[t][0].of[q] = vdotq_laneq_s32(total[t][0].of[q], w, x[t], four);
  }
}

#else

constexpr int int8_tile_tokens = 4;

// Adds the products of two fours of sixteen inputs.
template <int four, int num_tokens>
__attribute__((always_inline)) inline void add_products_of_eight(const int8x16_t (&x)[num_tokens], const int8_t* first,
                                                                 const int8_t* second,
                                                                 Int8Sums (&total)[num_tokens][1]) {
#pragma GCC unroll 4
  for (int q = 0; q < panel_quads; ++q) {
    const int8x16_t w0 = vld1q_s8(first + 16 * q), w1 = vld1q_s8(second + 16 * q);
#pragma GCC unroll 8
    for (int t = 0; t < num_tokens; ++t) {
      const int8x16_t x0 = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x[t]), four));
      const int8x16_t x1 = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x[t]), four + 1));
      int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0)), high = vmull_high_s8(w0, x0);
      low = vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1));
      high = vmlal_high_s8(high, w1, x1);
      total[t][0].of[q] = vpadalq_s16(total[t][0].of[q], vpaddq_s16(low, high));
    }
  }
}

#endif

// Adds the products of sixteen inputs of each token. The weights of their fours lie `stride` apart.
template <int num_tokens>
__attribute__((always_inline)) inline void add_products_of_panel(const uint8_t* in, const int8_t* weight,
                                                                 int64_t stride, Int8Sums (&total)[num_tokens][1]) {
  int8x16_t x[num_tokens];
#pragma GCC unroll 8
  for (int t = 0; t < num_tokens; ++t) x[t] = load_inputs(in + t * panel);
#if defined(__ARM_FEATURE_DOTPROD)
  add_products_of_four<0>(x, weight, total);
  add_products_of_four<1>(x, weight + stride, total);
  add_products_of_four<2>(x, weight + 2 * stride, total);
  add_products_of_four<3>(x, weight + 3 * stride, total);
#else
  add_products_of_eight<0>(x, weight, weight + stride, total);
  add_products_of_eight<2>(x, weight + 2 * stride, weight + 3 * stride, total);
#endif
}

// Sixteen channels of a token as int16.
struct Int16Panel {
  int16x8_t low, high;
};
inline Int16Panel load_int16(const int16_t* p) { return {vld1q_s16(p), vld1q_s16(p + 8)}; }
inline void store_int16(int16_t* p, Int16Panel x) {
  vst1q_s16(p, x.low);
  vst1q_s16(p + 8, x.high);
}

// The inputs of the next layer's products, min(255, (u * scale + 2^14) >> 15), of one token or two that follow each
// other.
inline void store_inputs(Int16Panel u, Int16Panel scale, uint8_t* inputs) {
  const uint8x8_t low = vqmovun_s16(vqrdmulhq_s16(u.low, scale.low));
  vst1q_u8(inputs, vqmovun_high_s16(low, vqrdmulhq_s16(u.high, scale.high)));
}
inline void store_inputs(Int16Panel first, Int16Panel second, Int16Panel scale, uint8_t* inputs) {
  store_inputs(first, scale, inputs);
  store_inputs(second, scale, inputs + panel);
}

template <int num_panels>
struct OutputVectors {
  static_assert(num_panels == 1, "a tile has one panel");
  int32x4_t left[panel_quads];  // shifts to the left, which are those to the right with the other sign
  Int16Panel scale, next_input_scale;
  explicit OutputVectors(const Int8Output& output)
      : scale(load_int16(output.scale)), next_input_scale(load_int16(output.next_input_scale)) {
    for (int q = 0; q < panel_quads; ++q) left[q] = vnegq_s32(vld1q_s32(output.shift + 4 * q));
  }

  // Adds to u of a token what the layer makes of its sums, and returns it.
  __attribute__((always_inline)) Int16Panel add_to_stream(const Int8Sums (&sums)[1], int16_t* u) const {
    const Int16Panel before = load_int16(u);
    const Int16Panel total{vqaddq_s16(before.low, vqrdmulhq_s16(activated(sums[0], 0), scale.low)),
                           vqaddq_s16(before.high, vqrdmulhq_s16(activated(sums[0], 2), scale.high))};
    store_int16(u, total);
    return total;
  }

 private:
  __attribute__((always_inline)) int16x8_t activated(const Int8Sums& sums, int q) const {
    const int16x4_t low = vqmovn_s32(vshlq_s32(sums.of[q], left[q]));
    return vmaxq_s16(vqmovn_high_s32(low, vshlq_s32(sums.of[q + 1], left[q + 1])), vdupq_n_s16(0));
  }
};

// u of layer 0 of one panel, and the inputs of layer 1. A token's sum is a copy of one that holds the bias, to which
// its taps are added.
struct TapSum {
  static constexpr int channels = panel;
  Int16Panel total, input_scale;
  TapSum(const int16_t* bias, const int16_t* scale) : total(load_int16(bias)), input_scale(load_int16(scale)) {}
  void add(const int16_t* tap) {
    const Int16Panel of_tap = load_int16(tap);
    total = {vaddq_s16(total.low, of_tap.low), vaddq_s16(total.high, of_tap.high)};
  }
  void store(int16_t* u, uint8_t* inputs) const {
    const Int16Panel positive{vmaxq_s16(total.low, vdupq_n_s16(0)), vmaxq_s16(total.high, vdupq_n_s16(0))};
    store_int16(u, positive);
    store_inputs(positive, input_scale, inputs);
  }
};

}  // namespace
}  // namespace dendritic_bert
