// Inference with int8 window layers: ids to logits in integers, to the bits of kernels/reference_int8.py. The steps,
// the strips and the distribution over threads are those of dsn_window_logits.h; here the sums of a row are exact, so
// that they do not depend on an order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "buffer.h"
#include "rows_over_threads.h"
#include "window_int8_head.h"
#include "window_int8_layers.h"
#include "window_int8_pooling.h"

namespace dendritic_bert {
namespace {

// The scratch of one thread. Layers is Int8Layers (window_int8_layers.h) or AmxInt8Layers (window_int8_layers_amx.h).
template <class Layers>
struct Int8Scratch {
  Int8Windows windows;  // with the scales and the gate's weights in the order of blocks
  Strip strip;
  Array<int64_t> token;           // [columns]
  Array<int16_t> u;               // [blocks, columns, channels of a block]
  Array<uint8_t> in, next_in;     // as Layers has them, input_bytes of each column
  Array<int32_t> gates;           // [columns]
  Array<int64_t> sums;            // [block_rows, D + M]
  Array<const int16_t*> taps;     // [columns], the taps of each one's token, or no_taps
  Array<int16_t> of_channels;     // [R + 2 J, M]: the two below, and what `windows` has in the order of blocks
  int16_t *no_taps, *first_bias;  // [R, M] zeros; [M], the bias of layer 0
  Buffer pooled, activations;     // [D + M], [N, C]
  Array<double> z;                // [outputs]
  int64_t gate_sums[block_rows];
  int64_t sums_stride;
  typename Layers::Scratch layers;

  Int8Scratch(const Int8Windows& given, const Head& head, int64_t longest_row)
      : windows(given),
        strip(strip_for(windows.shape, longest_row, Layers::least_gap)),
        token(strip.capacity),
        u(windows.shape.channels * strip.capacity + gate_group * int8_block),
        in(Layers::input_bytes(windows.shape.channels) * strip.capacity),
        next_in(Layers::input_bytes(windows.shape.channels) * strip.capacity),
        gates(strip.capacity + gate_group),
        sums(block_rows * (windows.shape.num_values + windows.shape.channels)),
        taps(strip.capacity),
        of_channels((2 * windows.shape.radius + 1 + 2 * windows.shape.num_layers) * windows.shape.channels),
        pooled(windows.shape.num_values + windows.shape.channels),
        activations(head.num_dendrites * head.num_labels),
        z((1 + head.num_dendrites) * head.num_labels),
        sums_stride(windows.shape.num_values + windows.shape.channels),
        layers(windows) {
    strip.token = token;
    const int64_t channels = windows.shape.channels, of_layers = (windows.shape.num_layers - 1) * channels;
    no_taps = of_channels;
    first_bias = std::fill_n(no_taps, (2 * windows.shape.radius + 1) * channels, int16_t(0));
    int16_t* to = std::copy_n(windows.bias, channels, first_bias);
    for (const int16_t** values : {&windows.input_scale, &windows.output_scale, &windows.gate_weight}) {
      const int64_t size = values == &windows.gate_weight ? channels : of_layers;
      for (int64_t o = 0; o < size; o += channels) copy_in_block_order(*values + o, channels, to + o);
      *values = to;
      to += size;
    }
  }
};

template <class Layers>
struct Int8Rows {
  const Int8LogitsArguments& arguments;
  const Tokens& tokens = arguments.tokens;
  const Int8Windows& windows = arguments.windows;
  const Windows& shape = windows.shape;
  const int64_t taps_per_token = (2 * shape.radius + 1) * shape.channels;
  using Scratch = Int8Scratch<Layers>;

  // Reads rows [first, last) and pools them into the sums. Returns false if an index is outside its table.
  bool pool(int64_t first, int64_t last, Scratch& scratch) const {
    return pack_rows(tokens, shape, first, last, scratch.strip, [&] { pool_strip(first, scratch); });
  }

  // Adds up the pieces of a strip, whose rows are counted from first_row, and empties it.
  void pool_strip(int64_t first_row, Scratch& scratch) const {
    Strip& strip = scratch.strip;
    const Int8Windows& windows = scratch.windows;
    gather_strip(strip, scratch);
    uint8_t *in = scratch.in, *next_in = scratch.next_in;
    for (int64_t layer = 1; layer < shape.num_layers; ++layer, std::swap(in, next_in)) {
      Layers::multiply(windows, layer, strip, in, scratch.u, next_in, scratch.layers);
      if (strip.has_holes) clear_holes(strip, scratch.u, next_in);
    }
    weigh_int8_tokens(windows, strip, {strip.gap, strip.size - strip.gap}, scratch.u, strip.capacity, scratch.gates);
    for (int64_t p = 0; p < strip.num_pieces; ++p) {
      const Piece& piece = strip.pieces[p];
      const Columns columns{piece.in_strip(piece.begin), piece.in_strip(piece.end)};
      const int64_t row = piece.row - first_row;
      for (int64_t c = columns.begin; c < columns.end; ++c) scratch.gate_sums[row] += scratch.gates[c];
      int64_t* sums = scratch.sums + row * scratch.sums_stride;
      pool_int8_values(windows, strip, columns, scratch.gates, sums);
      pool_int8_windows(columns, scratch.gates, scratch.u, strip.capacity, shape.channels, sums + shape.num_values);
    }
    strip.clear();
  }

  // u of layer 0 and the inputs of layer 1, and zeros in both inputs where columns belong to no row.
  void gather_strip(const Strip& strip, Scratch& scratch) const {
    for (int64_t c = 0; c < strip.size; ++c) {
      const int64_t token = strip.token[c];
      scratch.taps[c] = token < 0 ? scratch.no_taps : windows.taps + token * taps_per_token;
    }
    int64_t outside = 0;  // columns [outside, begin) belong to no row
    for (int64_t p = 0; p <= strip.num_pieces; ++p) {
      const bool is_last = p == strip.num_pieces;
      const Columns columns = is_last ? Columns{strip.size, strip.size} : columns_after(shape, strip.pieces[p], 0);
      for (const Array<uint8_t>* in : {&scratch.in, &scratch.next_in})
        Layers::clear_inputs(*in, strip.capacity, shape.channels, outside, columns.begin);
      gather_columns(strip, columns, scratch);
      outside = is_last ? strip.size : strip.pieces[p].in_strip(strip.pieces[p].last);
    }
    if (strip.has_holes) clear_holes(strip, scratch.u, scratch.in);
  }

  void gather_columns(const Strip& strip, Columns columns, Scratch& scratch) const {
    int64_t o = 0;
#if defined(__AVX512BW__)
    for (; o + int8_block <= shape.channels; o += int8_block)
      shape.radius == 1 ? gather_channels<WideTapSum<Layers::order>, 3>(strip, columns, o, scratch)
                        : gather_channels<WideTapSum<Layers::order>, 0>(strip, columns, o, scratch);
#endif
    for (; o < shape.channels; o += panel)
      shape.radius == 1 ? gather_channels<TapSum, 3>(strip, columns, o, scratch)
                        : gather_channels<TapSum, 0>(strip, columns, o, scratch);
  }

  // The channels of a Sum from o on, with `fixed_taps` taps or, where it is 0, any number of them.
  template <class Sum, int fixed_taps>
  __attribute__((noinline)) void gather_channels(const Strip& strip, Columns columns, int64_t o,
                                                 Scratch& scratch) const {
    const int64_t num_taps = fixed_taps ? fixed_taps : 2 * shape.radius + 1;
    const int64_t channels = shape.channels;
    // One layer has no inputs of another; zeros stand for their scale.
    const int16_t* input_scale = shape.num_layers > 1 ? scratch.windows.input_scale + o : scratch.no_taps + o;
    int16_t* u = scratch.u + o * strip.capacity;
    uint8_t* in = Layers::inputs_of_block(scratch.in, strip.capacity, o);
    const int64_t stride = Layers::input_stride(Sum::channels);
    const Sum without_taps(scratch.first_bias + o, input_scale);
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      Sum sum = without_taps;
      const int16_t* const* taps = scratch.taps + c - num_taps / 2;
#pragma GCC unroll 3
      for (int64_t k = 0; k < num_taps; ++k) sum.add(taps[k] + k * channels + o);
      sum.store(u + c * Sum::channels, in + c * stride);
    }
  }

  // Columns of a row that have no valid token are zero after every layer.
  void clear_holes(const Strip& strip, int16_t* u, uint8_t* in) const {
    for (int64_t c = 0; c < strip.size; ++c) {
      if (strip.token[c] >= 0) continue;
      Layers::clear_inputs(in, strip.capacity, shape.channels, c, c + 1);
      for (int64_t o = 0; o < shape.channels; o += int8_block) {
        const int64_t width = std::min<int64_t>(int8_block, shape.channels - o);
        std::fill_n(u + o * strip.capacity + c * width, width, int16_t(0));
      }
    }
  }

  // The head on the sums of rows [first, first + count).
  void run_head(int64_t first, int64_t count, Scratch& scratch) const {
    const Head& head = arguments.head;
    for (int64_t i = 0; i < count; ++i) {
      const double share = 1.0 / double(std::max<int64_t>(1, scratch.gate_sums[i]));
      const int64_t* sums = scratch.sums + i * scratch.sums_stride;
      for (int64_t h = 0; h < scratch.sums_stride; ++h)
        scratch.pooled[h] = float(double(sums[h]) * share * double(windows.pooled_scale[h]));
      multiply_int8_head(windows, head, scratch.pooled, scratch.z);
      run_int8_cascade(windows, head, scratch.z, scratch.activations, arguments.logits + (first + i) * head.num_labels);
    }
  }
};

template <class Layers>
inline void compute_int8_window_logits(const Int8LogitsArguments& arguments) {
  const Int8Rows<Layers> int8_rows{arguments};
  const Tokens& tokens = arguments.tokens;
  const Windows& shape = arguments.windows.shape;
  const int64_t longest_row = longest_row_of(tokens);
  // 32 products take as long as one element that the other kernels pool.
  const int64_t products = (shape.num_layers - 1) * int8_rows.taps_per_token * shape.channels;
  const int64_t elements_per_token = 16 + shape.num_values + int8_rows.taps_per_token + products / 32;
  for_row_blocks(tokens, elements_per_token, arguments.parallel_for, [&](int64_t begin, int64_t end) {
    Int8Scratch<Layers> scratch(arguments.windows, arguments.head, longest_row);
    for (int64_t first = begin * block_rows; first < std::min(tokens.rows, end * block_rows); first += block_rows) {
      const int64_t count = std::min(block_rows, tokens.rows - first);
      std::fill_n(static_cast<int64_t*>(scratch.sums), block_rows * scratch.sums_stride, int64_t(0));
      std::fill_n(scratch.gate_sums, block_rows, int64_t(0));
      if (!int8_rows.pool(first, first + count, scratch)) return;
      int8_rows.run_head(first, count, scratch);
    }
  });
}

inline void dsn_window_logits_int8(const Int8LogitsArguments& arguments) {
  compute_int8_window_logits<Int8Layers>(arguments);
}

}  // namespace
}  // namespace dendritic_bert
