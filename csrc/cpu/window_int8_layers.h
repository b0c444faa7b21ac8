// A window layer in int8 over the columns of a strip (window_strip.h); kernels/reference_int8.py has its formula. As in
// window_layers.h, a tile of tokens keeps its sums in registers over all taps and channels. The channels of a column
// lie side by side in blocks (window_int8_simd.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "window_int8_arguments.h"
#include "window_int8_simd.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

// What the tiles of a block of outputs share: whole arrays of inputs, and of what belongs to outputs that of the block.
struct Int8Layer {
  const uint8_t* in;     // [blocks, columns, channels of a block]
  const int8_t* weight;  // [R, channels / 4, channels, 4], of the tap at offset 0
  const int32_t* bias;   // [channels of the block]
  const int32_t* lacks;  // [R, channels], of the tap at offset 0; null where the products are those of the inputs
  Int8Output output;     // [channels of the block] each
  int16_t* u;            // [columns, channels of the block]
  uint8_t* next_in;      // [columns, channels of the block]; null in the last layer
  int64_t capacity;      // columns of an array
  int64_t channels, dilation;
};

// Adds the products of one tap with `width` input channels of num_tokens columns from `in` on. Returns the weights of
// the channel behind them.
template <int width, int num_tokens, int num_panels>
__attribute__((always_inline)) inline const int8_t* add_int8_inputs(const uint8_t* in, const int8_t* weight,
                                                                    int64_t channels,
                                                                    Int8Sums (&total)[num_tokens][num_panels]) {
#if defined(DENDRITIC_BERT_INT8_SIGNED)
  static_assert(width == panel && num_panels == 1, "the order of the weights");
  add_products_of_panel(in, weight, 4 * channels, total);
  return weight + panel * channels;
#elif defined(DENDRITIC_BERT_INT8_EIGHTS)
  static_assert(width == panel && num_panels == 1, "the order of the weights");
#pragma GCC unroll 1
  for (int i = 0; i < width; i += 8, weight += 8 * channels)
#pragma GCC unroll 16
    for (int t = 0; t < num_tokens; ++t)
      add_products_of_eight(total[t][0], in + t * width + i, weight, weight + 4 * channels);
  return weight;
#else
  // Two panels of inputs lie by turns in fours (window_int8_simd.h).
  constexpr bool is_wide = width > panel;
  int64_t step = (is_wide ? panel : 4) * channels, next_step = (is_wide ? 4 - panel : 4) * channels;
#pragma GCC unroll 1
  for (int i = 0; i < width; i += 4, weight += step, std::swap(step, next_step)) {
    const auto w0 = load_weight(weight), w1 = load_weight(weight + (num_panels - 1) * 4 * panel);
#pragma GCC unroll 16
    for (int t = 0; t < num_tokens; ++t) {
      const Four x = broadcast_four(in + t * width + i);
      add_products(total[t][0], x, w0);
      if constexpr (num_panels == 2) add_products(total[t][1], x, w1);
    }
  }
  return weight + (width - panel) * channels;
#endif
}

// Adds the sums of a tile to u and writes the inputs of the next layer, two tokens at a time, or none where next_in is
// null.
template <int num_tokens, int num_panels>
__attribute__((always_inline)) inline void finish_tile(const Int8Sums (&total)[num_tokens][num_panels],
                                                       const Int8Output& output, int16_t* u, uint8_t* next_in) {
  constexpr int width = num_panels * panel;
  const OutputVectors<num_panels> to(output);
#pragma GCC unroll 8
  for (int t = 0; t + 2 <= num_tokens; t += 2) {
    const auto first = to.add_to_stream(total[t], u + t * width);
    const auto second = to.add_to_stream(total[t + 1], u + (t + 1) * width);
    if (next_in) store_inputs(first, second, to.next_input_scale, next_in + t * width);
  }
  if constexpr (num_tokens % 2 == 1) {
    constexpr int t = num_tokens - 1;
    const auto last = to.add_to_stream(total[t], u + t * width);
    if (next_in) store_inputs(last, to.next_input_scale, next_in + t * width);
  }
}

// One tile: num_tokens columns from `column` on, and the taps from k_first to k_last, `dilation` columns apart.
template <int num_tokens, int num_panels>
__attribute__((noinline)) void multiply_int8_tile(const Int8Layer& layer, int64_t column, int64_t k_first,
                                                  int64_t k_last) {
  const int64_t channels = layer.channels;
  Int8Sums total[num_tokens][num_panels];
#if defined(DENDRITIC_BERT_INT8_SIGNED)
  Int8Sums first = load_sums(layer.bias);
  for (int64_t k = k_first; k <= k_last; ++k) add(first, layer.lacks + k * channels);
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t) total[t][0] = first;
#else
#pragma GCC unroll 16
  for (int t = 0; t < num_tokens; ++t)
#pragma GCC unroll 2
    for (int p = 0; p < num_panels; ++p) total[t][p] = load_sums(layer.bias + p * panel);
#endif
  const int64_t block_stride = layer.capacity * int8_block;
  const int8_t* weight = layer.weight + k_first * channels * channels;  // those of the taps follow each other
  for (int64_t k = k_first; k <= k_last; ++k) {
    const int64_t from = column + k * layer.dilation;
    const uint8_t* in = layer.in + from * int8_block;
    int64_t rest = channels;
    for (; rest >= int8_block; rest -= int8_block, in += block_stride)
      weight = add_int8_inputs<int8_block>(in, weight, channels, total);
    if (int8_block > panel && rest > 0)
      weight = add_int8_inputs<panel>(
          layer.in + (channels - panel) * layer.capacity + from * panel, weight, channels, total);
  }
  constexpr int width = num_panels * panel;
  finish_tile(total, layer.output, layer.u + column * width, layer.next_in ? layer.next_in + column * width : nullptr);
}

using Int8Tile = void (*)(const Int8Layer&, int64_t column, int64_t k_first, int64_t k_last);

// The tiles of 1, 2, ... tokens.
template <int num_panels, int... n>
inline const Int8Tile* int8_tiles(std::integer_sequence<int, n...>) {
  static constexpr Int8Tile tiles[] = {multiply_int8_tile<n + 1, num_panels>...};
  return tiles;
}

// What layer j does to the sums of the block of outputs from o on. The last layer has no next one, and its own scale
// stands in its place.
inline Int8Output int8_output(const Int8Windows& windows, int64_t layer, int64_t o) {
  const Windows& shape = windows.shape;
  const int64_t of = (layer - 1) * shape.channels + o;
  const int64_t of_next = layer + 1 < shape.num_layers ? of + shape.channels : of;
  return {windows.output_shift + of, windows.output_scale + of, windows.input_scale + of_next};
}

// The layers by the products of a vector.
struct Int8Layers {
  static constexpr int64_t least_gap = 0;
  static constexpr ChannelOrder order = ChannelOrder::of_block;

  // Where inputs are multiplied less 128: 128 times the weights of each tap, added up for each output.
  struct Scratch {
#if defined(DENDRITIC_BERT_INT8_SIGNED)
    Array<int32_t> lacks;  // [J - 1, R, M]

    explicit Scratch(const Int8Windows& windows) : lacks(num_taps(windows.shape) * windows.shape.channels) {
      const int64_t channels = windows.shape.channels;
      const int8_t* weight = windows.weight;
      for (int64_t tap = 0; tap < num_taps(windows.shape); ++tap) {
        int32_t* of_tap = std::fill_n(lacks + tap * channels, channels, int32_t(0)) - channels;
        for (int64_t four = 0; four < channels / 4; ++four)
          for (int64_t o = 0; o < channels; ++o, weight += 4)
            of_tap[o] += 128 * (weight[0] + weight[1] + weight[2] + weight[3]);
      }
    }

    static int64_t num_taps(const Windows& shape) {
      return std::max<int64_t>(0, shape.num_layers - 1) * (2 * shape.radius + 1);
    }
    const int32_t* of_layer(const Windows& shape, int64_t layer) const {
      return lacks + ((layer - 1) * (2 * shape.radius + 1) + shape.radius) * shape.channels;
    }
#else
    explicit Scratch(const Int8Windows&) {}
    const int32_t* of_layer(const Windows&, int64_t) const { return nullptr; }
#endif
  };

  // The inputs of a layer are [blocks, columns, channels of a block].
  static int64_t input_bytes(int64_t channels) { return channels; }
  static int64_t input_stride(int64_t width) { return width; }
  static uint8_t* inputs_of_block(uint8_t* in, int64_t capacity, int64_t o) { return in + o * capacity; }
  static void clear_inputs(uint8_t* in, int64_t capacity, int64_t channels, int64_t begin, int64_t end) {
    for (int64_t o = 0; o < channels; o += int8_block) {
      const int64_t width = std::min<int64_t>(int8_block, channels - o);
      std::fill(in + o * capacity + begin * width, in + o * capacity + end * width, uint8_t(0));
    }
  }

  // Layer j (1 <= j < J) of a strip: reads `in`, adds to u and, if another layer follows, writes its inputs, next_in.
  __attribute__((noinline)) static void multiply(const Int8Windows& windows, int64_t layer, const Strip& strip,
                                                 const uint8_t* in, int16_t* u, uint8_t* next_in,
                                                 const Scratch& scratch) {
    const Windows& shape = windows.shape;
    const int64_t channels = shape.channels, radius = shape.radius;
    const bool is_last = layer + 1 == shape.num_layers;
    const int8_t* weight = windows.weight + ((layer - 1) * (2 * radius + 1) + radius) * channels * channels;
    for (int64_t o = 0; o < channels; o += int8_block) {
      const Int8Layer of_block{in,
                               weight + 4 * o,
                               windows.bias + layer * channels + o,
                               scratch.of_layer(shape, layer) + o,
                               int8_output(windows, layer, o),
                               u + o * strip.capacity,
                               is_last ? nullptr : next_in + o * strip.capacity,
                               strip.capacity,
                               channels,
                               Windows::power_of_2(layer)};
      const std::make_integer_sequence<int, int8_tile_tokens> sizes;
      const Int8Tile* tiles = o + int8_block <= channels ? int8_tiles<int8_tile_panels>(sizes) : int8_tiles<1>(sizes);
      for_tiles<int8_tile_tokens>(
          shape, layer, strip, [&](int64_t column, int64_t tokens, int64_t k_first, int64_t k_last) {
        tiles[tokens - 1](of_block, column, k_first, k_last);
      });
    }
  }
};

}  // namespace
}  // namespace dendritic_bert
