// Inference with dendrites on windows of tokens: ids to logits in one pass over the rows.
//   1. Layer 0 is a gather: every word's products with the R taps lie in a table.
//   2. The other layers are matrix products (window_layers.h, window_layers_bf16.h, window_layers_amx.h).
//   3. Gate, pooling and head, while u is still in the caches.
// Rows are taken in blocks of sixteen and packed into strips (window_strip.h). A token's numbers depend on its row
// alone, so that a row has the same bits in every batch and with any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "head.h"
#include "processor.h"
#include "rows_over_threads.h"
#include "simd.h"
#include "window_columns.h"
#include "window_layers.h"
#include "window_layers_bf16.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

// Floats of the taps of one token type that L2 holds; those of a larger table are prefetched. For rows of 25 tokens
// whose taps take 3.7 MB that takes 1.02 of the time while L3 holds them, 0.97 while other programs use it as well, and
// 0.96 with 64 MB of other data between two calls (AMD EPYC).
constexpr int64_t largest_cached_taps = int64_t(1) << 18;

// The scratch of one thread.
template <class Layers>
struct WindowScratch {
  Strip strip;
  Array<int64_t> token;      // [columns]
  Array<const float*> taps;  // [columns], the taps of each one's token, or no_taps
  Buffer no_taps;            // [R, M] zeros
  Buffer weight;             // g_t, [columns] and what a whole vector takes beyond
  int64_t panel_stride, sums_stride;
  typename Layers::Scratch layers;
  Buffer sums;  // [block_rows, D + M padded with zeros to whole vectors]
  float weight_sums[block_rows];

  WindowScratch(const Windows& windows, int64_t longest_row)
      : strip(strip_for(windows, longest_row, Layers::least_gap)),
        token(strip.capacity),
        taps(strip.capacity),
        no_taps((2 * windows.radius + 1) * windows.channels),
        weight(strip.capacity + panel),
        panel_stride((strip.capacity + group_size) * panel),
        sums_stride(pad_to_lanes(windows.num_values + windows.channels)),
        layers(windows.channels / panel * panel_stride),
        sums(block_rows * sums_stride) {
    strip.token = token;
    std::fill_n(weight.data, strip.capacity + panel, 0.0f);
    std::fill_n(no_taps.data, (2 * windows.radius + 1) * windows.channels, 0.0f);
  }
};

template <class Layers>
struct WindowRows {
  const WindowLogitsArguments& arguments;
  const Layers& layers;
  const Tokens& tokens = arguments.tokens;
  const Windows& windows = arguments.windows;
  const int64_t taps_per_token = (2 * windows.radius + 1) * windows.channels;
  using Scratch = WindowScratch<Layers>;

  // Reads rows [first, last) and pools them into the sums. Returns false if an index is outside its table.
  bool pool(int64_t first, int64_t last, Scratch& scratch) const {
    return pack_rows(tokens, windows, first, last, scratch.strip, [&] { pool_strip(first, scratch); });
  }

  // Adds up the pieces of a strip, whose rows are counted from first_row, and empties it.
  void pool_strip(int64_t first_row, Scratch& scratch) const {
    Strip& strip = scratch.strip;
    const float* u = nullptr;
    if (windows.num_layers > 0) {
      gather_strip(strip, scratch);
      u = layers.run(strip, scratch.panel_stride, scratch.layers);
    }
    for (int64_t p = 0; p < strip.num_pieces; ++p) {
      const Piece& piece = strip.pieces[p];
      const Columns columns{piece.in_strip(piece.begin), piece.in_strip(piece.end)};
      weigh_tokens(strip, columns, u, scratch);
      const int64_t row = piece.row - first_row;
      float weight_sum = 0;
      for (int64_t c = columns.begin; c < columns.end; ++c) weight_sum += scratch.weight[c];
      scratch.weight_sums[row] += weight_sum;
      float* sums = scratch.sums + row * scratch.sums_stride;
      pool_values(strip, columns, scratch.weight, sums);
      add_columns(u, scratch.panel_stride, scratch.weight, windows.channels, columns.begin, columns.end,
                  sums + windows.num_values);
    }
    strip.clear();
  }

  // u of layer 0, with zeros in the columns that belong to no row.
  void gather_strip(const Strip& strip, Scratch& scratch) const {
    find_taps(strip, scratch);
    int64_t outside = 0;
    for (int64_t p = 0; p < strip.num_pieces; outside = strip.pieces[p++].start_of_gap()) {
      scratch.layers.clear(outside, strip.pieces[p].start, scratch.panel_stride, windows.channels);
      const Columns columns = columns_after(windows, strip.pieces[p], 0);
      int64_t o = 0;
      for (; o + 2 * panel <= windows.channels; o += 2 * panel)
        windows.radius == 1 ? gather<2, 3>(columns, o, scratch) : gather<2, 0>(columns, o, scratch);
      if (o < windows.channels)
        windows.radius == 1 ? gather<1, 3>(columns, o, scratch) : gather<1, 0>(columns, o, scratch);
    }
    // Behind the strip, too, where the gate's products read: what malloc left there may be subnormal numbers, each of
    // which costs an Intel processor some 150 cycles.
    scratch.layers.clear(outside, strip.size + group_size, scratch.panel_stride, windows.channels);
    clear_holes(windows, strip, scratch.panel_stride, scratch.layers.u);
  }

  // Finds the taps of every column, zeros where it has no valid token, and asks for those of a large table.
  void find_taps(const Strip& strip, Scratch& scratch) const {
    const bool is_large = tokens.vocab_size * taps_per_token > largest_cached_taps;
    for (int64_t c = 0; c < strip.size; ++c) {
      const int64_t token = strip.token[c];
      scratch.taps[c] = token < 0 ? scratch.no_taps : windows.taps + token * taps_per_token;
      if (!is_large || token < 0) continue;
      for (int64_t i = 0; i < taps_per_token; i += 16) prefetch_line(scratch.taps[c] + i);
      prefetch_line(windows.values + token * windows.num_values);
    }
  }

  // Layer 0 for the channels of num_panels panels from o on, with `fixed_taps` taps or, where it is 0, any number of
  // them.
  template <int num_panels, int fixed_taps>
  void gather(Columns columns, int64_t o, Scratch& scratch) const {
    constexpr int num_vectors = num_panels * panel_vectors;
    const int64_t num_taps = fixed_taps ? fixed_taps : 2 * windows.radius + 1, channels = windows.channels;
    float* u = scratch.layers.u + o / panel * scratch.panel_stride;
    Vec bias[num_vectors];
    for (int v = 0; v < num_vectors; ++v) bias[v] = load(windows.bias + o + v * lanes);
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      Vec total[num_vectors];
      for (int v = 0; v < num_vectors; ++v) total[v] = bias[v];
      const float* const* taps = scratch.taps + c - num_taps / 2;
#pragma GCC unroll 3
      for (int64_t k = 0; k < num_taps; ++k)
        for (int v = 0; v < num_vectors; ++v) total[v] += load(taps[k] + k * channels + o + v * lanes);
      for (int v = 0; v < num_vectors; ++v)
        store(u + v / panel_vectors * scratch.panel_stride + c * panel + v % panel_vectors * lanes,
              at_least(0.0f, total[v]));
    }
  }

  // weight[c] = g of the token at column c, and 0 where there is none.
  void weigh_tokens(const Strip& strip, Columns columns, const float* u, Scratch& scratch) const {
    float* weight = scratch.weight;
    if (!windows.gate) {
      for (int64_t c = columns.begin; c < columns.end; ++c) weight[c] = strip.token[c] < 0 ? 0.0f : 1.0f;
      return;
    }
    for (int64_t c = columns.begin; c < columns.end; c += group_size) {
      float dot[group_size] = {};
      if (u) multiply_columns(u + c * panel, scratch.panel_stride, windows.gate_weight, windows.channels, dot);
      for (int64_t j = 0; j < std::min<int64_t>(group_size, columns.end - c); ++j) {
        const int64_t token = strip.token[c + j];
        weight[c + j] = token < 0 ? 0.0f : windows.gate[token] + dot[j];
      }
    }
    for (int64_t c = columns.begin; c < columns.end; c += lanes) store(weight + c, gate_of(load(weight + c)));
    if (!strip.has_holes) return;
    for (int64_t c = columns.begin; c < columns.end; ++c)
      if (strip.token[c] < 0) weight[c] = 0;
  }

  void pool_values(const Strip& strip, Columns columns, const float* weight, float* sums) const {
    int64_t offset = 0;
    for (; offset + 16 <= windows.num_values; offset += 16) add_values<Floats16>(strip, columns, offset, weight, sums);
    for (; offset + 4 <= windows.num_values; offset += 4) add_values<Floats4>(strip, columns, offset, weight, sums);
    for (; offset < windows.num_values; ++offset) add_values<float>(strip, columns, offset, weight, sums);
  }

  // One float is no vector: GCC keeps the sum of a vector of one in memory, which takes some 15 cycles an addition.
  typedef float Floats4 __attribute__((vector_size(4 * sizeof(float))));
  typedef float Floats16 __attribute__((vector_size(16 * sizeof(float))));

  template <class Values>
  void add_values(const Strip& strip, Columns columns, int64_t offset, const float* weight, float* sums) const {
    Values total{}, sum, value;
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      if (strip.token[c] < 0) continue;
      std::memcpy(&value, windows.values + strip.token[c] * windows.num_values + offset, sizeof(value));
      total += value * weight[c];
    }
    std::memcpy(&sum, sums + offset, sizeof(sum));
    sum += total;  // of the piece alone, as add_panels
    std::memcpy(sums + offset, &sum, sizeof(sum));
  }

  // The head on the sums of rows [first, first + count).
  void run_head(int64_t first, int64_t count, Scratch& scratch, float* z) const {
    const Head& head = arguments.head;
    const int64_t outputs = (1 + head.num_dendrites) * head.num_labels, stride = scratch.sums_stride;
    const int64_t skipped = windows.folded ? windows.num_values : 0;
    const int64_t inputs = windows.num_values + windows.channels - skipped;
    for (int64_t i = 0; i < count; ++i) {
      const float scale = scratch.weight_sums[i] == 0 ? 0.0f : 1.0f / scratch.weight_sums[i];
      for (int64_t h = 0; h < stride; ++h) scratch.sums[i * stride + h] *= scale;
    }
    for (int64_t i = 0; i < count; i += head_rows) {
      const int n = int(std::min<int64_t>(head_rows, count - i));
      const float* sums = scratch.sums + i * stride;
      multiply_head(head, inputs, sums + skipped, stride, n, z);
      for (int r = 0; r < n; ++r) {
        if (windows.folded)
          for (int64_t o = 0; o < outputs; ++o) z[r * outputs + o] += sums[r * stride + o];
        run_cascade(head, z + r * outputs, arguments.logits + (first + i + r) * head.num_labels);
      }
    }
  }
};

template <class Layers>
inline void compute_window_logits(const WindowLogitsArguments& arguments, const Layers& layers) {
  const WindowRows<Layers> window_rows{arguments, layers};
  const Tokens& tokens = arguments.tokens;
  const Windows& windows = arguments.windows;
  const int64_t longest_row = longest_row_of(tokens);
  // Eight multiply-adds take as long as one element that the other kernels pool.
  const int64_t products = std::max<int64_t>(0, windows.num_layers - 1) * window_rows.taps_per_token * windows.channels;
  const int64_t elements_per_token = 16 + windows.num_values + window_rows.taps_per_token + products / 8;
  for_row_blocks(tokens, elements_per_token, arguments.parallel_for, [&](int64_t begin, int64_t end) {
    WindowScratch<Layers> scratch(windows, longest_row);
    Buffer z(head_rows * (1 + arguments.head.num_dendrites) * arguments.head.num_labels);
    for (int64_t first = begin * block_rows; first < std::min(tokens.rows, end * block_rows); first += block_rows) {
      const int64_t count = std::min(block_rows, tokens.rows - first);
      std::fill_n(scratch.sums.data, block_rows * scratch.sums_stride, 0.0f);
      std::fill_n(scratch.weight_sums, block_rows, 0.0f);
      if (!window_rows.pool(first, first + count, scratch)) return;
      window_rows.run_head(first, count, scratch, z);
    }
  });
}

inline void dsn_window_logits(const WindowLogitsArguments& arguments) {
  const Windows& windows = arguments.windows;
  if (windows.weight_type == WordType::float32) return compute_window_logits(arguments, FloatLayers(windows));
#if defined(__AVX512F__)
  static const bool multiplies_bfloat16 = Processor().avx512_bf16;
  if (multiplies_bfloat16) return compute_window_logits(arguments, Bfloat16Layers<Bfloat16Product>(windows));
#endif
  compute_window_logits(arguments, Bfloat16Layers<EmulatedBfloat16Product>(windows));
}

}  // namespace
}  // namespace dendritic_bert
