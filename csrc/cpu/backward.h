// Gradients of embed_pool, to the same bits whatever the number of threads.
//
// With G = gamma * g * scale (g the gradient of the pooled row, scale what pooling and dropout multiply a token by), m
// the dropout mask of a token and e its embedding sum, LayerNorm's backward is
//
//   d e = rstd * (m G - mean(m G)) - rstd^3 * mean(m G * centred e) * centred e
//       = a * m G - c * e + d        a = rstd, c = rstd^3 * mean(m G * centred e), d = c * mean(e) - a * mean(m G)
//
// Pass 1, over rows, finds G, the gradients of gamma and beta, and where each token lies. Pass 2, over tokens in the
// order of their ids, finds d e: a word row is read once, its gradient summed in registers and written once, with no
// atomics and no read-modify-write of the table's gradient; the context gradient takes d e where it lies, in L1 or L2.
// Rows and ids are cut into chunks by shape alone; each chunk has its own sums, which are added up in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "pool.h"
#include "rows.h"

namespace dendritic_bert {
namespace {

// A chunk has at least 4096 tokens' worth of work, and all copies of `size` floats together take at most 16 MB.
inline int64_t num_chunks(int64_t num_tokens, int64_t size) {
  return std::min(std::clamp<int64_t>(num_tokens / 4096, 1, 64), std::max<int64_t>(1, (int64_t(1) << 22) / size));
}

// to[i] = the sum of copies[chunk * size + i] over the chunks.
inline void add_up(const float* copies, int64_t chunks, int64_t size, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += double(copies[chunk * size + i]);
    to[i] = float(total);
  }
}

// Pass 1 over some rows; d_ln_weight and d_ln_bias are sums over these rows, in the caller's zeroed memory.
struct RowPass {
  const BackwardArguments& arguments;
  float *d_ln_weight, *d_ln_bias;
  const Tokens& tokens = arguments.tokens;
  const Dropout& dropout = arguments.dropout;
  const int64_t hidden_size = arguments.table.hidden_size, stride = padded_to_lanes(hidden_size);
  Buffer keep{stride};

  // row_gradient, zero-padded: g * scale with dropout on x, whose masks come before gamma and the mean; else G - mean(G),
  // with which mean(G * centred e) is mean(G * e) and d is c * mean(e).
  void row(int64_t row, int64_t count) {
    float scale, beta_share;
    pooling_factors(tokens.pooling, count, scale, beta_share);
    const bool drop = dropout.p_embed > 0;
    if (drop) scale *= float(1 / (1 - dropout.p_embed));
    if (dropout.p_pool > 0) dropout_keep(dropout.seed, row, 0, pool_stream, dropout.p_pool, hidden_size, keep);
    const float pool_scale = dropout.p_pool > 0 ? float(1 / (1 - dropout.p_pool)) : 1.0f;
    const float *const hat = arguments.pooled_hat + row * hidden_size, *const gamma = arguments.ln_weight;
    const float* const grad = arguments.grad_pooled + row * hidden_size;
    float* const g = arguments.row_gradient + row * stride;
    for (int64_t h = 0; h < hidden_size; ++h) g[h] = dropout.p_pool > 0 ? grad[h] * keep[h] * pool_scale : grad[h];
    for (int64_t h = 0; h < hidden_size; ++h) d_ln_weight[h] += g[h] * hat[h];
    if (!drop) for (int64_t h = 0; h < hidden_size; ++h) d_ln_bias[h] += g[h] * beta_share;
    for (int64_t h = 0; h < hidden_size; ++h) g[h] *= drop ? scale : scale * gamma[h];
    std::fill(g + hidden_size, g + stride, 0.0f);
    if (drop) return;
    Vec total = broadcast(0);
    for (int64_t h = 0; h < stride; h += lanes) total += load(g + h);
    const float mean = sum(total) / float(hidden_size);
    for (int64_t h = 0; h < hidden_size; ++h) g[h] -= mean;
  }

  // The tokens have passed the checks in the forward call, but ids may have been changed since: a bad one is reported.
  bool run(int64_t first_row, int64_t last_row) {
    TokenList list;
    for (int64_t b = first_row; b < last_row; ++b) {
      const int64_t start = tokens.row_start(b), length = tokens.row_length(b);
      int64_t count = 0;
      for (int64_t begin = 0; begin < length; begin += segment_length) {
        list.size = 0;
        if (!append(tokens, {b, begin, std::min(length, begin + segment_length)}, list)) return false;
        for (int64_t i = 0; i < list.size; ++i) {
          const int64_t token = start + list.column[i];
          arguments.places[token] = {arguments.rstd[token], int32_t(b), list.context[i], list.column[i]};
        }
        count += list.size;
      }
      row(b, count);
    }
    return true;
  }
};

inline void rows_backward(const BackwardArguments& arguments) {
  const int64_t hidden_size = arguments.table.hidden_size, rows = arguments.tokens.rows;
  const int64_t size = 2 * hidden_size, chunks = num_chunks(arguments.tokens.total, size);
  Buffer copies(chunks * size);
  parallel_for(arguments.parallel_for, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      float* copy = copies + chunk * size;
      std::fill(copy, copy + size, 0.0f);
      RowPass pass{arguments, copy, copy + hidden_size};
      if (!pass.run(rows * chunk / chunks, rows * (chunk + 1) / chunks)) return;
    }
  });
  add_up(copies, chunks, size, hidden_size, arguments.d_ln_weight);
  if (!(arguments.dropout.p_embed > 0)) add_up(copies + hidden_size, chunks, size, hidden_size, arguments.d_ln_bias);
}

// Pass 2 over some ids; d_context [contexts, stride] and, with dropout on x, d_ln_bias [stride] are sums over their
// tokens, in the caller's zeroed memory.
template <class Word>
struct IdPass {
  const IdsBackwardArguments& ids;
  float *d_context, *d_ln_bias;
  const BackwardArguments& arguments = ids.rows_pass;
  const Gather<Word> gather{arguments.table, arguments.tokens};
  const int64_t hidden_size = gather.hidden_size, stride = gather.stride, context_stride = arguments.table.context_stride;
  const int64_t last_token = ids.id_start[ids.num_unique] - 1;
  const float *const row_gradient = arguments.row_gradient, *const context = arguments.table.context;
  const float inverse = 1.0f / float(hidden_size);
  Buffer word{stride}, total{stride}, gated{stride};

  // The i-th token by id. The order of ids is random in memory: places are fetched 16 tokens ahead, G of the row that
  // a place names 4 ahead.
  const TokenPlace& place(int64_t i) const {
    const TokenPlace* const places = arguments.places;
    prefetch_line(places + ids.sorted_tokens[std::min(i + 16, last_token)]);
    const float* ahead = row_gradient + places[ids.sorted_tokens[std::min(i + 4, last_token)]].row * stride;
    for (int64_t h = 0; h < stride; h += 16) prefetch_line(ahead + h);
    return places[ids.sorted_tokens[i]];
  }

  // The word row of an id as zero-padded floats.
  const float* word_row(int64_t id) {
    const Word* row = gather.words + id * hidden_size;
    if constexpr (sizeof(Word) == sizeof(float)) if (!gather.tail) return row;
    for (int64_t h = 0; h < gather.full; h += lanes) store(word + h, load(row + h));
    if (gather.tail) store(word + gather.full, load_partial(row + gather.full, gather.tail));
    return word;
  }

  // total = the sum of d e over tokens [begin, end) of one id, with everything of a token in registers.
  template <int vectors>
  void in_registers(const float* w, int64_t begin, int64_t end) {
    Vec sum_e[vectors];
    for (Vec& t : sum_e) t = broadcast(0);
    for (int64_t i = begin; i < end; ++i) {
      const TokenPlace& token = place(i);
      const float *g = row_gradient + token.row * stride, *q = context + token.context * context_stride;
      float* const d_q = d_context + token.context * stride;
      Vec e[vectors], gradient[vectors];
      for (int k = 0; k < vectors; ++k) {
        e[k] = load(w + k * lanes) + load(q + k * lanes);
        gradient[k] = load(g + k * lanes);
      }
      const Pair sums_e = sums(total_of(e), dot(gradient, e));
      const float a = token.rstd, c = a * a * a * sums_e.second * inverse, d = c * sums_e.first * inverse;
      for (int k = 0; k < vectors; ++k) {
        const Vec d_e = broadcast(a) * gradient[k] - broadcast(c) * e[k] + broadcast(d);
        sum_e[k] += d_e;
        store(d_q + k * lanes, load(d_q + k * lanes) + d_e);
      }
    }
    for (int k = 0; k < vectors; ++k) store(total + k * lanes, sum_e[k]);
  }

  // m G of a token.
  const float* gate(const TokenPlace& token) {
    const Dropout& dropout = arguments.dropout;
    const float *const g = row_gradient + token.row * stride, *const gamma = arguments.ln_weight;
    dropout_keep(dropout.seed, token.row, token.column, embed_stream, dropout.p_embed, hidden_size, gated);
    for (int64_t h = 0; h < hidden_size; ++h) {
      const float kept = gated[h] * g[h];
      d_ln_bias[h] += kept;
      gated[h] = kept * gamma[h];
    }
    std::fill(gated + hidden_size, gated + stride, 0.0f);
    return gated;
  }

  // The same for rows of any size.
  template <bool drop>
  void in_memory(const float* w, int64_t begin, int64_t end) {
    std::fill(total.data, total + stride, 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      const TokenPlace& token = place(i);
      const float* const g = drop ? gate(token) : row_gradient + token.row * stride;
      const float* const q = context + token.context * context_stride;
      float* const d_q = d_context + token.context * stride;
      Vec e_part = broadcast(0), g_part = broadcast(0), ge_part = broadcast(0);
      for (int64_t h = 0; h < stride; h += lanes) {
        const Vec e = load(w + h) + load(q + h), gradient = load(g + h);
        e_part += e;
        ge_part += gradient * e;
        if (drop) g_part += gradient;
      }
      const Pair sums_e = sums(e_part, ge_part);
      const float e_mean = sums_e.first * inverse, g_mean = drop ? sum(g_part) * inverse : 0.0f;
      const float a = token.rstd, c = a * a * a * (sums_e.second * inverse - e_mean * g_mean), d = c * e_mean - a * g_mean;
      for (int64_t h = 0; h < stride; h += lanes) {
        const Vec e = load(w + h) + load(q + h);
        const Vec d_e = broadcast(a) * load(g + h) - broadcast(c) * e + broadcast(d);
        store(total + h, load(total + h) + d_e);
        store(d_q + h, load(d_q + h) + d_e);
      }
    }
  }

  void sum_tokens(const float* w, int64_t begin, int64_t end) {
    if (arguments.dropout.p_embed > 0) return in_memory<true>(w, begin, end);
    switch (stride / lanes) {
      case 1: return in_registers<1>(w, begin, end);
      case 2: return in_registers<2>(w, begin, end);
      case 3: return in_registers<3>(w, begin, end);
      case 4: return in_registers<4>(w, begin, end);
#if defined(__AVX512F__)  // 32 registers
      case 6: return in_registers<6>(w, begin, end);
      case 8: return in_registers<8>(w, begin, end);
#endif
      default: return in_memory<false>(w, begin, end);
    }
  }

  Word* gradient_row(int64_t row) const { return static_cast<Word*>(ids.d_word) + row * hidden_size; }

  // Rows of a dense gradient that no token asks for are zeroed on the way, in the order of memory.
  void zero_rows(int64_t begin, int64_t end) const {
    if (ids.word_gradient == WordGradient::dense && begin < end)
      std::memset(static_cast<void*>(gradient_row(begin)), 0, size_t(end - begin) * size_t(gather.row_bytes));
  }

  void run(int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) {
      const int64_t id = ids.unique_ids[u];
      zero_rows(u ? ids.unique_ids[u - 1] + 1 : 0, id);
      gather.prefetch_row(ids.unique_ids[std::min(u + 4, ids.num_unique - 1)]);
      sum_tokens(word_row(id), ids.id_start[u], ids.id_start[u + 1]);
      if (ids.word_gradient == WordGradient::none) continue;
      Word* to = gradient_row(ids.word_gradient == WordGradient::sparse ? u : id);
      for (int64_t h = 0; h < hidden_size; h += lanes)
        store_as(to + h, load(total + h), int(std::min<int64_t>(lanes, hidden_size - h)));
    }
    if (last == ids.num_unique) zero_rows(last ? ids.unique_ids[last - 1] + 1 : 0, arguments.tokens.vocab_size);
  }
};

// The first id that starts at or after this share of the tokens.
inline int64_t first_id(const IdsBackwardArguments& ids, int64_t token) {
  int64_t low = 0, high = ids.num_unique;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ids.id_start[middle] < token) low = middle + 1;
    else high = middle;
  }
  return low;
}

template <class Word>
inline void ids_backward_of(const IdsBackwardArguments& ids) {
  const BackwardArguments& arguments = ids.rows_pass;
  const int64_t hidden_size = arguments.table.hidden_size, stride = padded_to_lanes(hidden_size);
  const int64_t num_contexts = arguments.num_contexts, size = (num_contexts + 1) * stride;
  const int64_t num_tokens = ids.id_start[ids.num_unique], chunks = num_chunks(num_tokens, size);
  Buffer copies(chunks * size);
  parallel_for(arguments.parallel_for, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      float* copy = copies + chunk * size;
      std::fill(copy, copy + size, 0.0f);
      IdPass<Word> pass{ids, copy, copy + num_contexts * stride};
      pass.run(first_id(ids, num_tokens * chunk / chunks),
               chunk + 1 == chunks ? ids.num_unique : first_id(ids, num_tokens * (chunk + 1) / chunks));
    }
  });
  for (int64_t i = 0; i < num_contexts; ++i)
    add_up(copies + i * stride, chunks, size, hidden_size, ids.d_context + i * hidden_size);
  if (arguments.dropout.p_embed > 0)
    add_up(copies + num_contexts * stride, chunks, size, hidden_size, arguments.d_ln_bias);
}

inline void ids_backward(const IdsBackwardArguments& ids) {
  switch (ids.rows_pass.table.word_type) {
    case WordType::float32: return ids_backward_of<float>(ids);
    case WordType::bfloat16: return ids_backward_of<bfloat16>(ids);
    default: return ids_backward_of<float16>(ids);
  }
}

}  // namespace
}  // namespace dendritic_bert
