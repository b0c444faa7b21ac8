// Gradients of window_pool, with the same bits whatever the number of threads.
//
// Let G be the gradient of a pooled row p before its dropout, g_t the tokens' weights, s_t = g_t / sum g, and v the
// gate's weight. Then
//
//   d logit_t = s_t (G . h_t - G . p)      0 where the logit is clipped, and without a gate
//   d h_t     = s_t G + d logit_t v        = [d u_{J-1} ; d x]
//   d z_j     = d u_j where a_j is not 0, times dropout's factor
//   d U_jk    = sum_t u_{j-1, t + k 2^j} (x) d z_{j, t}           d b_j = sum_t d z_{j, t}
//   d u_{j-1} = d u_j + sum_k U_jk^T d z_{j, t - k 2^j}           in layer 0: d x += ...
//
// Pass 1 goes over ranges of rows, strip by strip: the forward pass again (window_pool_strip.h), then these lines. Each
// range has sums of its own, which are added up in order. Pass 2 adds up, segment by segment, what the tokens of a word
// left behind.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "embed_pool_backward.h"
#include "window_pool_strip.h"

namespace dendritic_bert {
namespace {

// Inputs whose products with the outputs of a tile's panels are summed in registers, as many as keep a load of the
// outputs' gradients and a broadcast input from taking longer than their multiply-adds.
constexpr int product_inputs = lanes == 16 ? 8 : lanes == 8 ? 4 : 2;
constexpr int product_panels = lanes == 16 ? 2 : 1;

// to[i, o] += the sum of in_{t + offset}[i] * out_t[o] over the columns t of each row for which t + offset lies in it,
// for product_inputs inputs and the outputs of num_panels panels. The rows of `to` lie `stride` apart.
template <int num_panels>
inline void add_products(const Strip& strip, int64_t offset, const float* in, const float* out, int64_t panel_stride,
                         float* to, int64_t stride) {
  constexpr int num_vectors = num_panels * panel_vectors;
  Vec total[product_inputs][num_vectors];
#pragma GCC unroll 8
  for (int i = 0; i < product_inputs; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < num_vectors; ++v) total[i][v] = broadcast(0);
  for (int64_t p = 0; p < strip.num_pieces; ++p) {
    const Piece& piece = strip.pieces[p];
    const int64_t begin = piece.start - std::min<int64_t>(offset, 0);
    const int64_t end = piece.start_of_gap() - std::max<int64_t>(offset, 0);
    for (int64_t t = begin; t < end; ++t) {
      Vec d[num_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < num_vectors; ++v)
        d[v] = load(out + v / panel_vectors * panel_stride + t * panel + v % panel_vectors * lanes);
#pragma GCC unroll 8
      for (int i = 0; i < product_inputs; ++i) {
        const Vec x = broadcast(in[(t + offset) * panel + i]);
#pragma GCC unroll 4
        for (int v = 0; v < num_vectors; ++v) total[i][v] += x * d[v];
      }
    }
  }
  for (int i = 0; i < product_inputs; ++i)
    for (int v = 0; v < num_vectors; ++v) {
      float* const at = to + i * stride + v * lanes;
      store(at, load(at) + total[i][v]);
    }
}

// The sums of one range of rows, or of all of them, of the padded parameters.
struct WindowPoolSums {
  float *weight, *bias, *gate, *ln_weight, *ln_bias, *token_type;

  WindowPoolSums(const PaddedWindows& padded, float* memory)
      : weight(memory),
        bias(weight + padded.num_weights()),
        gate(bias + padded.windows.num_layers * padded.windows.channels),
        ln_weight(gate + padded.pooled_size()),
        ln_bias(ln_weight + padded.hidden),
        token_type(ln_bias + padded.hidden) {}

  static int64_t size(const PaddedWindows& padded, int64_t num_types) {
    return padded.num_weights() + padded.windows.num_layers * padded.windows.channels + padded.pooled_size() +
           (2 + num_types) * padded.hidden;
  }
};

// The strips of a range of rows. The sums are zero at first.
struct WindowPoolGradient {
  const WindowPoolRows& rows;
  const WindowPoolBackwardArguments& gradients;
  WindowPoolScratch& scratch;
  const WindowPoolSums sums;
  const WindowPoolArguments& arguments = rows.arguments;
  const PaddedWindows& padded = rows.padded;
  const Windows& windows = rows.windows;
  const int64_t panel_stride = scratch.panel_stride, pooled_size = rows.pooled_size;
  Buffer d_h{pooled_size / panel * panel_stride}, d_z{scratch.layer_size};  // in panels
  Buffer share{scratch.strip.capacity + panel}, d_logit{scratch.strip.capacity + panel};
  Buffer pooled{pooled_size}, grad{pooled_size};

  float* d_x() const { return d_h + scratch.layer_size; }

  void run() {
    const Strip& strip = scratch.strip;
    rows.run(scratch);
    std::fill_n(d_logit.data, strip.size, 0.0f);
    for (int64_t p = 0; p < strip.num_pieces; ++p) differentiate_pooling(strip.pieces[p]);
    if (arguments.gate_weight) add_columns(scratch.h(), panel_stride, d_logit, pooled_size, 0, strip.size, sums.gate);
    for (int64_t layer = windows.num_layers - 1; layer >= 0; --layer) differentiate_layer(layer);
    for (int64_t p = 0; p < strip.num_pieces; ++p) differentiate_embeddings(strip.pieces[p]);
  }

  // d logit and d h of the columns of a row.
  void differentiate_pooling(const Piece& piece) {
    const int64_t begin = piece.start, end = piece.start_of_gap();
    const int64_t channels = arguments.hidden_size + arguments.dendrites;
    const float scale = rows.pool(piece, scratch, pooled);
    std::copy_n(gradients.grad_pooled + piece.row * channels, channels, scratch.row.data);
    if (arguments.p_pool > 0) rows.drop_pooled(piece.row, scratch.keep, scratch.row);
    padded.to_padded(arguments, scratch.row, grad);
    for (int64_t c = begin; c < end; ++c) share[c] = scratch.weight[c] * scale;
    if (arguments.gate_weight) {
      const float of_pooled = dot(grad, pooled, pooled_size);
      multiply_columns(scratch.h(), panel_stride, grad, pooled_size, begin, end, d_logit);
      for (int64_t c = begin; c < end; ++c) {
        const bool is_open = scratch.logit[c] > -gate_limit && scratch.logit[c] < gate_limit;
        d_logit[c] = is_open && scratch.strip.token[c] >= 0 ? share[c] * (d_logit[c] - of_pooled) : 0.0f;
      }
      std::fill_n(d_logit + end, group_size, 0.0f);  // which multiply_columns has written too
    }
    for (int64_t o = 0; o < pooled_size; o += lanes) {
      const Vec g = load(grad + o), v = arguments.gate_weight ? load(padded.gate + o) : broadcast(0);
      float* const to = d_h + o / panel * panel_stride + o % panel;
      for (int64_t c = begin; c < end; ++c) store(to + c * panel, broadcast(share[c]) * g + broadcast(d_logit[c]) * v);
    }
  }

  void differentiate_layer(int64_t layer) {
    activate_gradient(layer);
    const int64_t inputs = padded.inputs(layer), channels = windows.channels, dilation = Windows::power_of_2(layer);
    const float* const in = layer ? scratch.u(layer - 1) : scratch.x();
    for (int64_t k = 0; k < padded.num_taps; ++k)
      add_weight_gradient(
          (k - windows.radius) * dilation, in, inputs, sums.weight + padded.offset(layer) + k * inputs * channels);
    Tile<float, float> whole = rows.tile_of(layer, scratch);
    whole.in = d_z;
    whole.weight = padded.transposed + padded.offset(layer) + windows.radius * inputs * channels;
    whole.bias = padded.no_bias;
    whole.residual = whole.out = layer ? d_h.data : d_x();
    whole.channels = channels;
    whole.outputs = inputs;
    multiply_strip<FloatProductThen<Add>>(windows, layer, scratch.strip, whole);
  }

  // d z of a layer from d u, and the gradient of its bias. It is 0 between the rows and in holes, since a is.
  void activate_gradient(int64_t layer) {
    const Vec scale = broadcast(arguments.p_window > 0 ? dropout_scale(arguments.p_window) : 1.0f);
    for (int64_t o = 0; o < windows.channels; o += lanes) {
      const int64_t first = o / panel * panel_stride + o % panel;
      const float *const a = scratch.a(layer) + first, *const d_u = d_h + first;
      Vec total = broadcast(0);
      for (int64_t i = 0; i < scratch.strip.size * panel; i += panel) {
        const Vec d = where_nonzero(load(a + i), load(d_u + i) * scale);
        store(d_z + first + i, d);
        total += d;
      }
      float* const bias = sums.bias + layer * windows.channels + o;
      store(bias, load(bias) + total);
    }
  }

  // Adds the gradient of a tap's matrix [inputs, channels].
  void add_weight_gradient(int64_t offset, const float* in, int64_t inputs, float* to) const {
    const int64_t channels = windows.channels;
    for (int64_t i = 0; i < inputs; i += product_inputs) {
      const float* const from = in + i / panel * panel_stride + i % panel;
      int64_t o = 0;
      for (; o + product_panels * panel <= channels; o += product_panels * panel)
        add_products<product_panels>(
            scratch.strip, offset, from, d_z + o / panel * panel_stride, panel_stride, to + i * channels + o, channels);
      if (o < channels)
        add_products<1>(
            scratch.strip, offset, from, d_z + o / panel * panel_stride, panel_stride, to + i * channels + o, channels);
    }
  }

  // From d x to what each token adds to its word and type.
  void differentiate_embeddings(const Piece& piece) {
    const int64_t first = rows.tokens.row_start(piece.row) + piece.first - piece.start;
    for (int64_t c = piece.start; c < piece.start_of_gap(); ++c) {
      const int64_t token = scratch.strip.token[c];
      if (token < 0) continue;
      float* const d = gradients.d_token + (first + c) * padded.hidden;
      gradients.d_logit[first + c] = d_logit[c];
      column_to_row(d_x() + c * panel, padded.hidden, panel_stride, d);
      if (arguments.p_embed > 0) {
        rows.drop_embedding(piece, c, scratch.keep);
        for (int64_t h = 0; h < arguments.hidden_size; ++h) d[h] *= scratch.keep[h];
      }
      if (arguments.ln_weight) differentiate_norm(scratch.x_hat + c * padded.hidden, scratch.rstd[c], d);
      float* const type = sums.token_type + rows.type_of(token) * padded.hidden;
      for (int64_t h = 0; h < padded.hidden; h += lanes) store(type + h, load(type + h) + load(d + h));
    }
  }

  // d of a token's x becomes that of its embedding; LayerNorm's own gradients are added.
  void differentiate_norm(const float* x_hat, float rstd, float* d) const {
    const int64_t hidden_size = arguments.hidden_size;
    for (int64_t h = 0; h < hidden_size; ++h) {
      sums.ln_weight[h] += d[h] * x_hat[h];
      sums.ln_bias[h] += d[h];
      d[h] *= arguments.ln_weight[h];
    }
    Vec total = broadcast(0);
    for (int64_t h = 0; h < padded.hidden; h += lanes) total += load(d + h);
    const float inverse = 1.0f / float(hidden_size), mean = sum_lanes(total) * inverse,
                slope = dot(d, x_hat, padded.hidden) * inverse;
    for (int64_t h = 0; h < hidden_size; ++h) d[h] = rstd * (d[h] - mean - x_hat[h] * slope);
  }
};

// From sums of padded parameters to gradients of the parameters' shapes.
inline void write_gradients(const WindowPoolBackwardArguments& gradients, const PaddedWindows& padded,
                            const WindowPoolSums& sums) {
  const WindowPoolArguments& arguments = gradients.forward;
  const int64_t hidden_size = arguments.hidden_size, dendrites = arguments.dendrites,
                channels = padded.windows.channels;
  for (int64_t layer = 0; layer < arguments.num_layers; ++layer) {
    const int64_t inputs = layer ? dendrites : hidden_size;
    float* to =
        layer ? gradients.d_weight + (layer - 1) * padded.num_taps * inputs * dendrites : gradients.d_input_weight;
    std::copy_n(sums.bias + layer * channels, dendrites, gradients.d_bias + layer * dendrites);
    for (int64_t k = 0; k < padded.num_taps; ++k)
      for (int64_t i = 0; i < inputs; ++i, to += dendrites)
        std::copy_n(sums.weight + padded.offset(layer) + (k * padded.inputs(layer) + i) * channels, dendrites, to);
  }
  for (int64_t type = 0; type < arguments.tokens.num_types; ++type)
    std::copy_n(sums.token_type + type * padded.hidden, hidden_size, gradients.d_token_type + type * hidden_size);
  if (arguments.gate_weight) padded.from_padded(arguments, sums.gate, gradients.d_gate_weight);
  if (!arguments.ln_weight) return;
  std::copy_n(sums.ln_weight, hidden_size, gradients.d_ln_weight);
  std::copy_n(sums.ln_bias, hidden_size, gradients.d_ln_bias);
}

inline void window_pool_backward(const WindowPoolBackwardArguments& gradients) {
  const WindowPoolArguments& arguments = gradients.forward;
  const PaddedWindows padded(arguments);
  const WindowPoolRows rows{arguments, padded};
  const int64_t size = WindowPoolSums::size(padded, arguments.tokens.num_types);
  // The ranges' copies take at most 16 MB together.
  const int64_t ranges = num_row_ranges(arguments.tokens, std::min(most_row_ranges, (int64_t(1) << 22) / size));
  Buffer copies(ranges * size), total(size);
  for_row_ranges(rows, ranges, [&](int64_t range, int64_t first, int64_t last, WindowPoolScratch& scratch) {
    std::fill_n(copies + range * size, size, 0.0f);
    WindowPoolGradient gradient{rows, gradients, scratch, WindowPoolSums(padded, copies + range * size)};
    pack_rows(rows.tokens, rows.windows, first, last, scratch.strip, [&] {
      gradient.run();
      scratch.strip.clear();
    });
  });
  add_copies(copies, ranges, size, size, total);
  write_gradients(gradients, padded, WindowPoolSums(padded, total));
}

inline void window_pool_words(const WindowPoolWordsArguments& arguments) {
  const int64_t hidden_size = arguments.hidden_size, stride = pad_to_panels(hidden_size);
  parallel_for(arguments.parallel_for, arguments.num_segments, 256, [&](int64_t first, int64_t last) {
    Buffer total(stride);
    for (int64_t s = first; s < last; ++s) {
      float logit = 0;
      std::fill_n(total.data, stride, 0.0f);
      for (int64_t i = arguments.starts[s]; i < arguments.starts[s + 1]; ++i) {
        const float* const d = arguments.d_token + arguments.tokens[i] * stride;
        for (int64_t h = 0; h < stride; h += lanes) store(total + h, load(total + h) + load(d + h));
        logit += arguments.d_logit[arguments.tokens[i]];
      }
      if (arguments.d_word) std::copy_n(total.data, hidden_size, arguments.d_word + arguments.ids[s] * hidden_size);
      if (arguments.d_gate_bias) arguments.d_gate_bias[arguments.ids[s]] = logit;
    }
  });
}

}  // namespace
}  // namespace dendritic_bert
