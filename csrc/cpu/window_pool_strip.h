// Training with windows: what the forward and the backward of window_pool compute for the rows of a strip.
//
// A strip (window_strip.h) holds whole rows. Everything is in panels of 16 channels, [panels, columns, 16], as in
// window_layers.h, with zeros in the columns that belong to no valid token. Let a_j be what layer j adds:
//
//   a_j = relu(b_j + sum_k U_jk u_{j-1}) * dropout       u_j = u_{j-1} + a_j       u_{-1} = 0, but x under U_0k
//
// Both are kept for every layer of the strip: the backward pass multiplies by u_j, and a_j is 0 exactly where nothing
// flows back. The backward pass computes them anew, since the layers are a third of its multiply-adds and a strip of
// 256 columns, 330 KB at five layers of 32 dendrites, stays in L2, where u of a whole batch would go through memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "dropout.h"
#include "rows_over_threads.h"
#include "simd.h"
#include "window_columns.h"
#include "window_layers.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

static_assert(panel == channel_multiple);  // d_token has rows of whole panels, which the binding allocates
inline int64_t pad_to_panels(int64_t n) { return (n + panel - 1) / panel * panel; }

// The parameters of the layers and of the gate with their channels padded with zeros to whole panels. The channels of h
// are here those of u, then those of x.
struct PaddedWindows {
  Windows windows{};               // of which radius, num_layers and channels, M padded, are used
  const int64_t num_taps, hidden;  // hidden is H padded
  Buffer weight, transposed;       // of each layer [R, inputs, channels] and [R, channels, inputs]
  Buffer bias, no_bias, gate;      // [J, channels], zeros, [channels + hidden]

  explicit PaddedWindows(const WindowPoolArguments& of)
      : num_taps(2 * of.radius + 1),
        hidden(pad_to_panels(of.hidden_size)),
        weight(num_weights(of)),
        transposed(num_weights(of)),
        bias(of.num_layers * pad_to_panels(of.dendrites)),
        no_bias(std::max(pad_to_panels(of.dendrites), hidden)),
        gate(pad_to_panels(of.dendrites) + hidden) {
    windows.radius = of.radius;
    windows.num_layers = of.num_layers;
    windows.channels = pad_to_panels(of.dendrites);
    std::fill_n(weight.data, num_weights(of), 0.0f);
    std::fill_n(transposed.data, num_weights(of), 0.0f);
    std::fill_n(bias.data, of.num_layers * windows.channels, 0.0f);
    std::fill_n(no_bias.data, std::max(windows.channels, hidden), 0.0f);
    for (int64_t layer = 0; layer < of.num_layers; ++layer) {
      std::copy_n(of.bias + layer * of.dendrites, of.dendrites, bias + layer * windows.channels);
      pad_layer(of, layer);
    }
    if (of.gate_weight) to_padded(of, of.gate_weight, gate);
  }

  int64_t inputs(int64_t layer) const { return layer ? windows.channels : hidden; }
  int64_t pooled_size() const { return windows.channels + hidden; }
  // Where a layer's matrices begin in `weight` and in `transposed`.
  int64_t offset(int64_t layer) const {
    return num_taps * windows.channels * (layer ? hidden + (layer - 1) * windows.channels : 0);
  }
  int64_t num_weights() const { return windows.num_layers ? offset(windows.num_layers) : 0; }

  // From the channels of a row [H + M] to those of h, and back.
  void to_padded(const WindowPoolArguments& of, const float* row, float* padded) const {
    std::fill_n(padded, pooled_size(), 0.0f);
    std::copy_n(row + of.hidden_size, of.dendrites, padded);
    std::copy_n(row, of.hidden_size, padded + windows.channels);
  }
  void from_padded(const WindowPoolArguments& of, const float* padded, float* row) const {
    std::copy_n(padded, of.dendrites, row + of.hidden_size);
    std::copy_n(padded + windows.channels, of.hidden_size, row);
  }

 private:
  static int64_t num_weights(const WindowPoolArguments& of) {
    const int64_t channels = pad_to_panels(of.dendrites);
    const int64_t inputs = pad_to_panels(of.hidden_size) + std::max<int64_t>(0, of.num_layers - 1) * channels;
    return (2 * of.radius + 1) * channels * inputs;
  }

  // Towards a layer's inputs a window is mirrored: the token at offset k sees this one at offset -k.
  void pad_layer(const WindowPoolArguments& of, int64_t layer) {
    const int64_t rows = layer ? of.dendrites : of.hidden_size, channels = windows.channels;
    const float* from = layer ? of.weight + (layer - 1) * num_taps * rows * of.dendrites : of.input_weight;
    for (int64_t k = 0; k < num_taps; ++k) {
      float* const matrix = weight + offset(layer) + k * inputs(layer) * channels;
      float* const mirrored = transposed + offset(layer) + (num_taps - 1 - k) * inputs(layer) * channels;
      for (int64_t i = 0; i < rows; ++i, from += of.dendrites) {
        std::copy_n(from, of.dendrites, matrix + i * channels);
        for (int64_t o = 0; o < of.dendrites; ++o) mirrored[o * inputs(layer) + i] = from[o];
      }
    }
  }
};

// The memory of one thread.
struct WindowPoolScratch {
  Strip strip{};
  Array<int64_t> token;  // [columns]
  const int64_t panel_stride, layer_size, num_layers;
  Buffer activated, u_and_x;  // a_j of all layers; u_j of all layers, then x
  Buffer logit, weight;       // of the gate, and g_t, [columns] and what a group takes beyond
  Buffer row, keep;           // one token's, or one row's, channels
  Buffer x_hat, rstd;         // [columns, hidden], [columns]; under LayerNorm alone

  WindowPoolScratch(const WindowPoolArguments& arguments, const PaddedWindows& padded, int64_t longest_row)
      : strip(strip_of_whole_rows(padded.windows, longest_row)),
        token(strip.capacity),
        panel_stride((strip.capacity + group_size) * panel),
        layer_size(padded.windows.channels / panel * panel_stride),
        num_layers(padded.windows.num_layers),
        activated(num_layers * layer_size),
        u_and_x(num_layers * layer_size + padded.hidden / panel * panel_stride),
        logit(strip.capacity + panel),
        weight(strip.capacity + panel),
        row(padded.pooled_size()),
        keep(padded.pooled_size()),
        x_hat(arguments.ln_weight ? strip.capacity * padded.hidden : 0),
        rstd(arguments.ln_weight ? strip.capacity : 0) {
    strip.token = token;
  }

  float* a(int64_t layer) const { return activated + layer * layer_size; }
  float* u(int64_t layer) const { return u_and_x + layer * layer_size; }
  float* x() const { return u(num_layers); }
  float* h() const { return num_layers ? u(num_layers - 1) : x(); }  // u of the last layer, which x follows

 private:
  static Strip strip_of_whole_rows(const Windows& windows, int64_t longest_row) {
    Strip strip{};
    strip.gap = 2 * windows.radius;
    strip.capacity = std::max(strip_columns, longest_row) + 2 * strip.gap;
    return strip;
  }
};

// ---- rows and panels ------------------------------------------------------------------------------------------------

inline void row_to_column(const float* row, int64_t channels, int64_t panel_stride, float* column) {
  for (int64_t h = 0; h < channels; h += lanes) store(column + h / panel * panel_stride + h % panel, load(row + h));
}
inline void column_to_row(const float* column, int64_t channels, int64_t panel_stride, float* row) {
  for (int64_t h = 0; h < channels; h += lanes) store(row + h, load(column + h / panel * panel_stride + h % panel));
}

inline float dot(const float* x, const float* y, int64_t channels) {
  Vec total = broadcast(0);
  for (int64_t h = 0; h < channels; h += lanes) total += load(x + h) * load(y + h);
  return sum_lanes(total);
}

// dots[c] = <weight, column c of h>, for columns [begin, end) and up to group_size - 1 beyond.
inline void multiply_columns(const float* h, int64_t panel_stride, const float* weight, int64_t channels, int64_t begin,
                             int64_t end, float* dots) {
  for (int64_t c = begin; c < end; c += group_size)
    multiply_columns(h + c * panel, panel_stride, weight, channels, dots + c);
}

// ---- the forward pass of a strip ------------------------------------------------------------------------------------

struct WindowPoolRows {
  const WindowPoolArguments& arguments;
  const PaddedWindows& padded;
  const Tokens& tokens = arguments.tokens;
  const Windows& windows = padded.windows;
  const int64_t hidden_size = arguments.hidden_size, pooled_size = padded.pooled_size();
  using Scratch = WindowPoolScratch;

  // The word and the type of a row of the tables, of which the strip keeps type * V + word.
  int64_t word_of(int64_t token) const { return token < tokens.vocab_size ? token : token % tokens.vocab_size; }
  int64_t type_of(int64_t token) const { return token < tokens.vocab_size ? 0 : token / tokens.vocab_size; }

  // u of every layer, x, and the weight of every column.
  void run(Scratch& scratch) const {
    const Strip& strip = scratch.strip;
    clear_unused_columns(scratch.x(), strip, scratch.panel_stride, padded.hidden);
    for (int64_t p = 0; p < strip.num_pieces; ++p) embed(strip.pieces[p], scratch);
    for (int64_t layer = 0; layer < windows.num_layers; ++layer) run_layer(layer, scratch);
    weigh_tokens(scratch);
  }

  // x of the valid tokens of a row.
  void embed(const Piece& piece, Scratch& scratch) const {
    float* const row = scratch.row;
    std::fill_n(row, padded.hidden, 0.0f);
    for (int64_t c = piece.start; c < piece.start_of_gap(); ++c) {
      const int64_t token = scratch.strip.token[c];
      if (token < 0) continue;
      const float* const word = arguments.word + word_of(token) * hidden_size;
      const float* const type = arguments.token_type + type_of(token) * hidden_size;
      for (int64_t h = 0; h < hidden_size; ++h) row[h] = word[h] + type[h];
      if (arguments.ln_weight) normalise(row, scratch.x_hat + c * padded.hidden, scratch.rstd[c]);
      if (arguments.p_embed > 0) {
        drop_embedding(piece, c, scratch.keep);
        for (int64_t h = 0; h < hidden_size; ++h) row[h] *= scratch.keep[h];
      }
      row_to_column(row, padded.hidden, scratch.panel_stride, scratch.x() + c * panel);
    }
  }

  void normalise(float* row, float* x_hat, float& rstd) const {
    Vec total = broadcast(0);
    for (int64_t h = 0; h < padded.hidden; h += lanes) total += load(row + h);
    const float mean = sum_lanes(total) / float(hidden_size);
    for (int64_t h = 0; h < hidden_size; ++h) row[h] -= mean;
    rstd = 1.0f / std::sqrt(dot(row, row, padded.hidden) / float(hidden_size) + arguments.eps);
    for (int64_t h = 0; h < padded.hidden; ++h) x_hat[h] = row[h] * rstd;
    for (int64_t h = 0; h < hidden_size; ++h) row[h] = x_hat[h] * arguments.ln_weight[h] + arguments.ln_bias[h];
  }

  // What dropout multiplies the channels of a token's x by, 0 or 1 / (1 - p).
  void drop_embedding(const Piece& piece, int64_t c, float* keep) const {
    draw(piece.row, piece.first + c - piece.start, embed_stream, arguments.p_embed, hidden_size, keep);
  }
  void draw(int64_t row, int64_t column, int stream, double p, int64_t channels, float* keep) const {
    dropout_keep(arguments.seed, row, column, PhiloxStream(stream), p, channels, keep);
    const float scale = dropout_scale(p);
    for (int64_t i = 0; i < channels; ++i) keep[i] *= scale;
  }

  void run_layer(int64_t layer, Scratch& scratch) const {
    const Strip& strip = scratch.strip;
    float* const a = scratch.a(layer);
    const float* const before = layer ? scratch.u(layer - 1) : scratch.x();
    Tile<float, float> whole = tile_of(layer, scratch);
    whole.in = before;
    whole.weight = padded.weight + padded.offset(layer) + windows.radius * padded.inputs(layer) * windows.channels;
    whole.bias = padded.bias + layer * windows.channels;
    whole.residual = whole.out = a;
    whole.channels = padded.inputs(layer);
    whole.outputs = windows.channels;
    multiply_strip<FloatProductThen<Relu>>(windows, layer, strip, whole);
    clear_unused_columns(a, strip, scratch.panel_stride, windows.channels);
    if (arguments.p_window > 0) drop_windows(layer, scratch);
    for (int64_t o = 0; o < windows.channels / panel; ++o) {
      const int64_t first = o * scratch.panel_stride;
      float* const u = scratch.u(layer) + first;
      for (int64_t i = 0; i < strip.size * panel; i += lanes)
        store(u + i, layer ? load(before + first + i) + load(a + first + i) : load(a + first + i));
    }
  }

  Tile<float, float> tile_of(int64_t layer, const Scratch& scratch) const {
    Tile<float, float> tile{};
    tile.panel_stride = scratch.panel_stride;
    tile.dilation = Windows::power_of_2(layer);
    return tile;
  }

  void drop_windows(int64_t layer, Scratch& scratch) const {
    float *const a = scratch.a(layer), *const keep = scratch.keep;
    std::fill_n(keep, windows.channels, 0.0f);
    for (int64_t p = 0; p < scratch.strip.num_pieces; ++p) {
      const Piece& piece = scratch.strip.pieces[p];
      for (int64_t c = piece.start; c < piece.start_of_gap(); ++c) {
        draw(piece.row, piece.first + c - piece.start, window_stream + int(layer), arguments.p_window,
             arguments.dendrites, keep);
        for (int64_t o = 0; o < windows.channels; o += lanes) {
          float* const at = a + o / panel * scratch.panel_stride + c * panel + o % panel;
          store(at, load(at) * load(keep + o));
        }
      }
    }
  }

  // logit[c] and weight[c] = g of the token at column c; 0 where there is none.
  void weigh_tokens(Scratch& scratch) const {
    const Strip& strip = scratch.strip;
    float *const logit = scratch.logit, *const weight = scratch.weight;
    if (arguments.gate_weight) {
      multiply_columns(scratch.h(), scratch.panel_stride, padded.gate, pooled_size, 0, strip.size, logit);
      for (int64_t c = 0; c < strip.size; ++c)
        logit[c] = strip.token[c] < 0 ? 0.0f : logit[c] + arguments.gate_bias[word_of(strip.token[c])];
      for (int64_t c = 0; c < strip.size; c += lanes) store(weight + c, gate_of(load(logit + c)));
    } else {
      std::fill_n(weight, strip.size, 1.0f);
    }
    for (int64_t c = 0; c < strip.size; ++c)
      if (strip.token[c] < 0) weight[c] = 0;
  }

  // The weighted mean of a row, [channels + hidden]. Returns 1 over the sum of the weights.
  float pool(const Piece& piece, const Scratch& scratch, float* pooled) const {
    const int64_t begin = piece.start, end = piece.start_of_gap();
    double total = 0;  // in double, since its error is that of every share, and with it of all gradients of the row
    for (int64_t c = begin; c < end; ++c) total += double(scratch.weight[c]);
    std::fill_n(pooled, pooled_size, 0.0f);
    add_columns(scratch.h(), scratch.panel_stride, scratch.weight, pooled_size, begin, end, pooled);
    const float scale = float(1 / total);  // a row in the strip has a valid token, whose weight is at least exp(-8)
    for (int64_t h = 0; h < pooled_size; ++h) pooled[h] *= scale;
    return scale;
  }

  // Multiplies a row [H + M] by its dropout.
  void drop_pooled(int64_t row, float* keep, float* values) const {
    const int64_t channels = hidden_size + arguments.dendrites;
    draw(row, 0, pool_stream, arguments.p_pool, channels, keep);
    for (int64_t i = 0; i < channels; ++i) values[i] *= keep[i];
  }
};

// The number of ranges of rows, which depends on the batch's shape alone: about 1,024 tokens each, a millisecond's work
// at 46,000 multiply-adds a token, and at most `most`.
constexpr int64_t most_row_ranges = 64;
inline int64_t num_row_ranges(const Tokens& tokens, int64_t most = most_row_ranges) {
  return std::clamp<int64_t>(tokens.total / 1024, 1, std::max<int64_t>(1, most));
}

// Calls body(range, first row, last row, scratch) on the threads for each range.
template <class Body>
inline void for_row_ranges(const WindowPoolRows& rows, int64_t ranges, const Body& body) {
  const Tokens& tokens = rows.tokens;
  const int64_t longest_row = longest_row_of(tokens);
  parallel_for(rows.arguments.parallel_for, ranges, 1, [&](int64_t begin, int64_t end) {
    WindowPoolScratch scratch(rows.arguments, rows.padded, longest_row);
    for (int64_t range = begin; range < end; ++range)
      body(range, tokens.rows * range / ranges, tokens.rows * (range + 1) / ranges, scratch);
  });
}

}  // namespace
}  // namespace dendritic_bert
