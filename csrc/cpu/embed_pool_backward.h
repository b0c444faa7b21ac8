// Gradients of embed_pool, with the same bits whatever the number of threads.
//
// Let g be the gradient of the pooled row, scale the factor of pooling and dropout on a token, G = gamma * g * scale, m
// the token's dropout mask and e the sum of its embeddings. Then LayerNorm's backward is
//
//   d e = rstd * (m G - mean(m G)) - rstd^3 * mean(m G * centred e) * centred e
//       = a * m G - c * e + d        a = rstd, c = rstd^3 * mean(m G * centred e), d = c * mean(e) - a * mean(m G)
//
// Pass 1 goes over rows and computes G, the gradients of gamma and beta, and where each token lies. Pass 2 goes over
// segments, the tokens sorted by id (segments.h), and computes d e: each row of the word table is read once, and its
// gradient is summed in registers and written once, with no atomics and without reading the gradient's memory. The
// gradient of the context table is added to in place, in L1 or L2.
//
// Rows and segments are cut into ranges by shape alone. Each range has sums of its own, which are added up in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "buffer.h"
#include "dropout.h"
#include "gather_layernorm_pool.h"
#include "rows_over_threads.h"
#include "simd.h"
#include "tokens.h"

namespace dendritic_bert {
namespace {

// A range has at least 4096 tokens' worth of work, and the ranges' copies of `size` floats take at most 16 MB together.
inline int64_t num_ranges(int64_t num_tokens, int64_t size) {
  return std::min(std::clamp<int64_t>(num_tokens / 4096, 1, 64), std::max<int64_t>(1, (int64_t(1) << 22) / size));
}

// to[i] = the sum of copies[range * size + i] over the ranges.
inline void add_copies(const float* copies, int64_t ranges, int64_t size, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    double total = 0;
    for (int64_t range = 0; range < ranges; ++range) total += double(copies[range * size + i]);
    to[i] = float(total);
  }
}

// Pass 1 over a range of rows. The caller provides d_ln_weight and d_ln_bias, which are zero.
struct RowPass {
  const BackwardArguments& arguments;
  float *d_ln_weight, *d_ln_bias;
  const Tokens& tokens = arguments.tokens;
  const Dropout& dropout = arguments.dropout;
  const int64_t hidden_size = arguments.table.hidden_size, stride = pad_to_lanes(hidden_size);
  Buffer keep{stride};

  // Writes row_gradient, padded with zeros. Under dropout on the embeddings it is g * scale, since the masks come
  // before gamma and the mean. Otherwise it is G - mean(G), so that mean(G * centred e) is mean(G * e), and d is c *
  // mean(e).
  void compute_row_gradient(int64_t row, int64_t count) {
    float scale, beta_share;
    pooling_factors(tokens.pooling, count, scale, beta_share);
    const bool drop = dropout.p_embed > 0;
    if (drop) scale *= dropout_scale(dropout.p_embed);
    if (dropout.p_pool > 0) dropout_keep(dropout.seed, row, 0, pool_stream, dropout.p_pool, hidden_size, keep);
    const float pool_scale = dropout.p_pool > 0 ? dropout_scale(dropout.p_pool) : 1.0f;
    const float *const pooled_hat = arguments.pooled_hat + row * hidden_size, *const gamma = arguments.ln_weight;
    const float* const grad = arguments.grad_pooled + row * hidden_size;
    float* const g = arguments.row_gradient + row * stride;
    for (int64_t h = 0; h < hidden_size; ++h) g[h] = dropout.p_pool > 0 ? grad[h] * keep[h] * pool_scale : grad[h];
    for (int64_t h = 0; h < hidden_size; ++h) d_ln_weight[h] += g[h] * pooled_hat[h];
    if (!drop)
      for (int64_t h = 0; h < hidden_size; ++h) d_ln_bias[h] += g[h] * beta_share;
    for (int64_t h = 0; h < hidden_size; ++h) g[h] *= drop ? scale : scale * gamma[h];
    std::fill(g + hidden_size, g + stride, 0.0f);
    if (drop) return;
    Vec total = broadcast(0);
    for (int64_t h = 0; h < stride; h += lanes) total += load(g + h);
    const float mean = sum_lanes(total) / float(hidden_size);
    for (int64_t h = 0; h < hidden_size; ++h) g[h] -= mean;
  }

  // Returns false if an index is outside its table: the caller may have changed the ids since the forward call.
  bool run(int64_t first_row, int64_t last_row) {
    TokenList list;
    for (int64_t b = first_row; b < last_row; ++b) {
      const int64_t start = tokens.row_start(b), length = tokens.row_length(b);
      int64_t count = 0;
      for (int64_t begin = 0; begin < length; begin += split_columns) {
        list.size = 0;
        if (!append(tokens, {b, begin, std::min(length, begin + split_columns)}, list)) return false;
        for (int64_t i = 0; i < list.size; ++i) {
          const int64_t token = start + list.column[i];
          arguments.places[token] = {arguments.rstd[token], int32_t(b), list.context[i], list.column[i]};
        }
        count += list.size;
      }
      compute_row_gradient(b, count);
    }
    return true;
  }
};

inline void backward_rows(const BackwardArguments& arguments) {
  const int64_t hidden_size = arguments.table.hidden_size, rows = arguments.tokens.rows;
  const int64_t size = 2 * hidden_size, ranges = num_ranges(arguments.tokens.total, size);
  Buffer copies(ranges * size);
  parallel_for(arguments.parallel_for, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t range = begin; range < end; ++range) {
      float* copy = copies + range * size;
      std::fill(copy, copy + size, 0.0f);
      RowPass pass{arguments, copy, copy + hidden_size};
      if (!pass.run(rows * range / ranges, rows * (range + 1) / ranges)) return;
    }
  });
  add_copies(copies, ranges, size, hidden_size, arguments.d_ln_weight);
  if (!(arguments.dropout.p_embed > 0))
    add_copies(copies + hidden_size, ranges, size, hidden_size, arguments.d_ln_bias);
}

// Pass 2 over a range of segments. The caller provides d_context [num_contexts, stride] and d_ln_bias [stride], which
// are zero; d_ln_bias is used under dropout on the embeddings.
template <class Word>
struct SegmentPass {
  const SegmentsBackwardArguments& segments;
  float *d_context, *d_ln_bias;
  const BackwardArguments& arguments = segments.rows_pass;
  const FullWidthPooler<Word> pooler{arguments.table, arguments.tokens};
  const int64_t hidden_size = pooler.hidden_size, stride = pooler.stride,
                context_stride = arguments.table.context_stride;
  const int64_t last_token = segments.starts[segments.num_segments] - 1;
  const float *const row_gradient = arguments.row_gradient, *const context = arguments.table.context;
  const float inverse = 1.0f / float(hidden_size);
  Buffer word{stride}, total{stride}, masked_gradient{stride};

  // The place of token i in the order of the segments. That order is random in memory, so places are prefetched 16
  // tokens ahead, and the row gradients that they name 4 tokens ahead.
  const TokenPlace& read_place(int64_t i) const {
    const TokenPlace* const places = arguments.places;
    prefetch_line(places + segments.tokens[std::min(i + 16, last_token)]);
    const float* ahead = row_gradient + places[segments.tokens[std::min(i + 4, last_token)]].row * stride;
    for (int64_t h = 0; h < stride; h += 16) prefetch_line(ahead + h);
    return places[segments.tokens[i]];
  }

  // The word's row as floats, padded with zeros.
  const float* read_word(int64_t id) {
    const Word* row = pooler.words + id * hidden_size;
    if constexpr (sizeof(Word) == sizeof(float))
      if (!pooler.tail) return row;
    for (int64_t h = 0; h < pooler.full; h += lanes) store(word + h, load(row + h));
    if (pooler.tail) store(word + pooler.full, load_partial(row + pooler.full, pooler.tail));
    return word;
  }

  // total = the sum of d e over tokens [begin, end) of a segment, with all of a token in registers.
  template <int vectors>
  void sum_in_registers(const float* w, int64_t begin, int64_t end) {
    Vec sum_e[vectors];
    for (Vec& t : sum_e) t = broadcast(0);
    for (int64_t i = begin; i < end; ++i) {
      const TokenPlace& token = read_place(i);
      const float *g = row_gradient + token.row * stride, *q = context + token.context * context_stride;
      float* const d_q = d_context + token.context * stride;
      Vec e[vectors], gradient[vectors];
      for (int k = 0; k < vectors; ++k) {
        e[k] = load(w + k * lanes) + load(q + k * lanes);
        gradient[k] = load(g + k * lanes);
      }
      const Pair sums_e = sum_lanes(add_vectors(e), dot(gradient, e));
      const float a = token.rstd, c = a * a * a * sums_e.second * inverse, d = c * sums_e.first * inverse;
      for (int k = 0; k < vectors; ++k) {
        const Vec d_e = broadcast(a) * gradient[k] - broadcast(c) * e[k] + broadcast(d);
        sum_e[k] += d_e;
        store(d_q + k * lanes, load(d_q + k * lanes) + d_e);
      }
    }
    for (int k = 0; k < vectors; ++k) store(total + k * lanes, sum_e[k]);
  }

  // m G of a token; adds m g * scale to the gradient of beta.
  const float* apply_dropout(const TokenPlace& token) {
    const Dropout& dropout = arguments.dropout;
    const float *const g = row_gradient + token.row * stride, *const gamma = arguments.ln_weight;
    dropout_keep(dropout.seed, token.row, token.column, embed_stream, dropout.p_embed, hidden_size, masked_gradient);
    for (int64_t h = 0; h < hidden_size; ++h) {
      const float masked_g = masked_gradient[h] * g[h];
      d_ln_bias[h] += masked_g;
      masked_gradient[h] = masked_g * gamma[h];
    }
    std::fill(masked_gradient + hidden_size, masked_gradient + stride, 0.0f);
    return masked_gradient;
  }

  // The same for rows of any length.
  template <bool drop>
  void sum_in_memory(const float* w, int64_t begin, int64_t end) {
    std::fill(total.data, total + stride, 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      const TokenPlace& token = read_place(i);
      const float* const g = drop ? apply_dropout(token) : row_gradient + token.row * stride;
      const float* const q = context + token.context * context_stride;
      float* const d_q = d_context + token.context * stride;
      Vec e_part = broadcast(0), g_part = broadcast(0), ge_part = broadcast(0);
      for (int64_t h = 0; h < stride; h += lanes) {
        const Vec e = load(w + h) + load(q + h), gradient = load(g + h);
        e_part += e;
        ge_part += gradient * e;
        if (drop) g_part += gradient;
      }
      const Pair sums_e = sum_lanes(e_part, ge_part);
      const float e_mean = sums_e.first * inverse, g_mean = drop ? sum_lanes(g_part) * inverse : 0.0f;
      const float a = token.rstd, c = a * a * a * (sums_e.second * inverse - e_mean * g_mean),
                  d = c * e_mean - a * g_mean;
      for (int64_t h = 0; h < stride; h += lanes) {
        const Vec e = load(w + h) + load(q + h);
        const Vec d_e = broadcast(a) * load(g + h) - broadcast(c) * e + broadcast(d);
        store(total + h, load(total + h) + d_e);
        store(d_q + h, load(d_q + h) + d_e);
      }
    }
  }

  void sum_tokens(const float* w, int64_t begin, int64_t end) {
    if (arguments.dropout.p_embed > 0) return sum_in_memory<true>(w, begin, end);
    switch (stride / lanes) {
      case 1: return sum_in_registers<1>(w, begin, end);
      case 2: return sum_in_registers<2>(w, begin, end);
      case 3: return sum_in_registers<3>(w, begin, end);
      case 4: return sum_in_registers<4>(w, begin, end);
#if defined(__AVX512F__)  // which has 32 registers
      case 6: return sum_in_registers<6>(w, begin, end);
      case 8: return sum_in_registers<8>(w, begin, end);
#endif
      default: return sum_in_memory<false>(w, begin, end);
    }
  }

  Word* gradient_row(int64_t row) const { return static_cast<Word*>(segments.d_word) + row * hidden_size; }

  // Rows of a dense gradient that no token uses are set to zero between the others, in the order of memory.
  void zero_rows(int64_t begin, int64_t end) const {
    if (segments.word_gradient == WordGradient::dense && begin < end)
      std::memset(static_cast<void*>(gradient_row(begin)), 0, size_t(end - begin) * size_t(pooler.row_bytes));
  }

  void run(int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      const int64_t id = segments.ids[s];
      zero_rows(s ? segments.ids[s - 1] + 1 : 0, id);
      pooler.prefetch_row(segments.ids[std::min(s + 4, segments.num_segments - 1)]);
      sum_tokens(read_word(id), segments.starts[s], segments.starts[s + 1]);
      if (segments.word_gradient == WordGradient::none) continue;
      Word* to = gradient_row(segments.word_gradient == WordGradient::sparse ? s : id);
      for (int64_t h = 0; h < hidden_size; h += lanes)
        store_as(to + h, load(total + h), int(std::min<int64_t>(lanes, hidden_size - h)));
    }
    if (last == segments.num_segments) zero_rows(last ? segments.ids[last - 1] + 1 : 0, arguments.tokens.vocab_size);
  }
};

// The first segment that starts at or after the given sorted token.
inline int64_t first_segment(const SegmentsBackwardArguments& segments, int64_t token) {
  int64_t low = 0, high = segments.num_segments;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (segments.starts[middle] < token) low = middle + 1;
    else high = middle;
  }
  return low;
}

template <class Word>
inline void backward_segments_of(const SegmentsBackwardArguments& segments) {
  const BackwardArguments& arguments = segments.rows_pass;
  const int64_t hidden_size = arguments.table.hidden_size, stride = pad_to_lanes(hidden_size);
  const int64_t num_contexts = arguments.num_contexts, size = (num_contexts + 1) * stride;
  const int64_t num_tokens = segments.starts[segments.num_segments], ranges = num_ranges(num_tokens, size);
  Buffer copies(ranges * size);
  parallel_for(arguments.parallel_for, ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t range = begin; range < end; ++range) {
      float* copy = copies + range * size;
      std::fill(copy, copy + size, 0.0f);
      SegmentPass<Word> pass{segments, copy, copy + num_contexts * stride};
      pass.run(
          first_segment(segments, num_tokens * range / ranges),
          range + 1 == ranges ? segments.num_segments : first_segment(segments, num_tokens * (range + 1) / ranges));
    }
  });
  for (int64_t i = 0; i < num_contexts; ++i)
    add_copies(copies + i * stride, ranges, size, hidden_size, segments.d_context + i * hidden_size);
  if (arguments.dropout.p_embed > 0)
    add_copies(copies + num_contexts * stride, ranges, size, hidden_size, arguments.d_ln_bias);
}

inline void backward_segments(const SegmentsBackwardArguments& segments) {
  switch (segments.rows_pass.table.word_type) {
    case WordType::float32: return backward_segments_of<float>(segments);
    case WordType::bfloat16: return backward_segments_of<bfloat16>(segments);
    default: return backward_segments_of<float16>(segments);
  }
}

}  // namespace
}  // namespace dendritic_bert
