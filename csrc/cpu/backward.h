// Gradients of embed_pool, to the same bits whatever the number of threads.
//
// With G = gamma * g * scale (g the gradient of the pooled row, scale what pooling and dropout multiply a token by), m
// the dropout mask of a token and e its embedding sum, LayerNorm's backward is
//
//   d e = rstd * (m G - mean(m G)) - rstd^3 * mean(m G * centred e) * centred e
//       = a * m G - c * e + d        a = rstd, c = rstd^3 * mean(m G * centred e), d = c * mean(e) - a * mean(m G)
//
// Pass 1, in row order, finds (a, c, d) of every token and adds d e to the context gradient. Rows are cut into chunks
// by shape alone; each chunk has its own copy, added up in order. Pass 2, in the order of ids, sums d e over all tokens
// of an id in registers and writes the id's row once: no atomics, no read-modify-write of the table's gradient.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "forward.h"
#include "pool.h"
#include "rows.h"

namespace {

// Rows in chunks: the number depends on shapes alone, never on threads. A chunk holds at least 4096 tokens' worth of
// work, and all copies of the context gradient together at most 16 MB.
inline int64_t context_chunks(const BackwardArguments& arguments, int64_t stride) {
  const int64_t by_work = std::clamp<int64_t>(arguments.tokens.total / 4096, 1, 64);
  const int64_t by_memory = std::max<int64_t>(1, (int64_t(1) << 22) / std::max<int64_t>(1, arguments.num_contexts * stride));
  return std::max<int64_t>(1, std::min({by_work, by_memory, arguments.tokens.rows}));
}

// Pass 1 over some rows. All gradients are sums over these rows, in the caller's zeroed memory.
template <class Word>
struct TokenPass {
  const BackwardArguments& arguments;
  float *d_context, *d_ln_weight, *d_ln_bias;  // [contexts, stride], [stride], [stride]
  const Gather<Word> gather{arguments.table, arguments.tokens};
  const Dropout& dropout = arguments.dropout;
  const int64_t hidden_size = gather.hidden_size, stride = gather.stride;
  const bool drop = dropout.p_embed > 0;
  Buffer e{group_size * stride}, keep{group_size * stride}, keep_count{stride};
  Buffer pooled_gradient{stride};  // g * scale, before gamma
  float row_gradient_sum = 0;

  // G of a row, zero-padded, and the row's share of d_ln_weight and, without dropout on x, of d_ln_bias.
  void begin_row(int64_t row) {
    float scale, beta_share;
    pooling_factors(arguments.tokens.pooling, kept_tokens(arguments.tokens, row), scale, beta_share);
    if (drop) scale *= float(1 / (1 - dropout.p_embed));
    if (dropout.p_pool > 0) dropout_keep(dropout.seed, row, 0, pool_stream, dropout.p_pool, hidden_size, keep);
    const float pool_scale = dropout.p_pool > 0 ? float(1 / (1 - dropout.p_pool)) : 1.0f;
    const float *const hat = arguments.pooled_hat + row * hidden_size, *const gamma = arguments.ln_weight;
    const float* const grad = arguments.grad_pooled + row * hidden_size;
    float *const g = pooled_gradient, *const row_gradient = arguments.row_gradient + row * stride;
    for (int64_t h = 0; h < hidden_size; ++h) g[h] = dropout.p_pool > 0 ? grad[h] * keep[h] * pool_scale : grad[h];
    for (int64_t h = 0; h < hidden_size; ++h) d_ln_weight[h] += g[h] * hat[h];
    if (!drop) for (int64_t h = 0; h < hidden_size; ++h) d_ln_bias[h] += g[h] * beta_share;
    for (int64_t h = 0; h < hidden_size; ++h) g[h] *= scale;
    for (int64_t h = 0; h < hidden_size; ++h) row_gradient[h] = g[h] * gamma[h];
    std::fill(row_gradient + hidden_size, row_gradient + stride, 0.0f);
    Vec total = broadcast(0);
    for (int64_t h = 0; h < stride; h += lanes) total += load(row_gradient + h);
    row_gradient_sum = sum(total);
    if (drop) std::fill(keep_count.data, keep_count + hidden_size, 0.0f);
  }

  void end_row() {
    if (drop)
      for (int64_t h = 0; h < hidden_size; ++h) d_ln_bias[h] += pooled_gradient[h] * keep_count[h];
  }

  // m G of token j into keep, which held the mask.
  void gate(int64_t row, int64_t column, const float* row_gradient, float* gated) {
    dropout_keep(dropout.seed, row, column, embed_stream, dropout.p_embed, hidden_size, gated);
    for (int64_t h = 0; h < hidden_size; ++h) {
      keep_count[h] += gated[h];
      gated[h] *= row_gradient[h];
    }
    for (int64_t h = hidden_size; h < stride; ++h) gated[h] = 0;
  }

  // Tokens [first, last) of the list one by one, e in registers; the form of pool_in_registers, without dropout on x.
  template <int vectors>
  void in_registers(const Segment& segment, const TokenList& list, int64_t first, int64_t last) {
    const int64_t start = arguments.tokens.row_start(segment.row), context_stride = arguments.table.context_stride;
    const float *const g = arguments.row_gradient + segment.row * stride, *const context = arguments.table.context;
    const float *const rstd = arguments.rstd + start, g_mean = row_gradient_sum / float(vectors * lanes);
    TokenGradient* const to = arguments.tokens_gradient + start;
    const Word* const words = gather.words;
    const int64_t distance = gather.prefetch_distance;
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = list.context[i];
      const Word* word = words + int64_t(list.id[i]) * (vectors * lanes);
      const char* ahead = reinterpret_cast<const char*>(words + int64_t(list.id[i + distance]) * (vectors * lanes));
      for (size_t byte = 0; byte < vectors * lanes * sizeof(Word); byte += 64) __builtin_prefetch(ahead + byte);
      Vec e[vectors], gradient[vectors];
      for (int k = 0; k < vectors; ++k) {
        e[k] = load(word + k * lanes) + load(context + row * context_stride + k * lanes);
        gradient[k] = load(g + k * lanes);
      }
      const float mean = sum(total_of(e)) / float(vectors * lanes), a = rstd[list.column[i]];
      const float c = a * a * a * (sum(dot(gradient, e)) / float(vectors * lanes) - mean * g_mean), d = c * mean - a * g_mean;
      to[list.column[i]] = {a, c, d, int32_t(segment.row), int32_t(row), list.column[i]};
      float* d_row = d_context + row * stride;
      for (int k = 0; k < vectors; ++k)
        store(d_row + k * lanes,
              load(d_row + k * lanes) + (broadcast(a) * gradient[k] - broadcast(c) * e[k] + broadcast(d)));
    }
  }

  void tokens(const Segment& segment, const TokenList& list, int64_t first, int64_t last) {
    if (!drop && !gather.tail) switch (stride / lanes) {
      case 1: return in_registers<1>(segment, list, first, last);
      case 2: return in_registers<2>(segment, list, first, last);
      case 3: return in_registers<3>(segment, list, first, last);
      case 4: return in_registers<4>(segment, list, first, last);
#if defined(__AVX512F__)  // 32 registers
      case 6: return in_registers<6>(segment, list, first, last);
      case 8: return in_registers<8>(segment, list, first, last);
#endif
      default: break;
    }
    for (int64_t i = first; i < last; i += group_size)
      group(segment, list, i, int(std::min<int64_t>(group_size, last - i)));
  }

  void group(const Segment& segment, const TokenList& list, int64_t first, int count) {
    const int64_t start = arguments.tokens.row_start(segment.row);
    const float* row_gradient = arguments.row_gradient + segment.row * stride;
    float e_sum[group_size], g_sum[group_size], ge_sum[group_size];
    Vec g_part[group_size] = {}, ge_part[group_size] = {};
    gather.template embed<false>(list, first, count, e, e_sum);
    for (int j = 0; j < count; ++j) {
      float* gated = keep + j * stride;
      if (drop) gate(segment.row, list.column[first + j], row_gradient, gated);
      const float* g = drop ? gated : row_gradient;
      for (int64_t h = 0; h < stride; h += lanes) {
        ge_part[j] += load(g + h) * load(e + j * stride + h);
        if (drop) g_part[j] += load(g + h);
      }
    }
    sums(ge_part, ge_sum);
    if (drop) sums(g_part, g_sum);
    else std::fill(g_sum, g_sum + group_size, row_gradient_sum);

    const float inverse = 1.0f / float(hidden_size);
    for (int j = 0; j < count; ++j) {
      const int64_t token = start + list.column[first + j];
      const float a = arguments.rstd[token], mean = e_sum[j] * inverse;
      const float c = a * a * a * (ge_sum[j] - mean * g_sum[j]) * inverse;
      const float d = c * mean - a * g_sum[j] * inverse;
      arguments.tokens_gradient[token] = {a, c, d, int32_t(segment.row), list.context[first + j], list.column[first + j]};
      const float* g = drop ? keep + j * stride : row_gradient;
      float* to = d_context + list.context[first + j] * stride;
      for (int64_t h = 0; h < stride; h += lanes)
        store(to + h, load(to + h) + (broadcast(a) * load(g + h) - broadcast(c) * load(e + j * stride + h) + broadcast(d)));
    }
  }

  // The tokens have passed the checks in the forward call, but ids may have been changed since: a bad one is reported.
  bool run(int64_t first_row, int64_t last_row) {
    TokenList list;
    Segment segments[max_segments];
    int64_t starts[max_segments + 1], row = first_row, column = 0;
    while (const int64_t n = next_segments(arguments.tokens, row, column, last_row, segments))
      for (int64_t s = 0; s < n;) {
        const int64_t filled = fill(gather, segments + s, n - s, list, starts);
        if (filled < 0) return false;
        for (int64_t k = 0; k < filled; ++k, ++s) {
          if (segments[s].begin == 0) begin_row(segments[s].row);
          tokens(segments[s], list, starts[k], starts[k + 1]);
          if (segments[s].end == arguments.tokens.row_length(segments[s].row)) end_row();
        }
      }
    return true;
  }
};

template <class Word>
inline void tokens_backward_of(const BackwardArguments& arguments) {
  const int64_t hidden_size = arguments.table.hidden_size, stride = padded_to_lanes(hidden_size);
  const int64_t chunks = context_chunks(arguments, stride), rows = arguments.tokens.rows;
  const int64_t size = (arguments.num_contexts + 2) * stride;
  Buffer copies(chunks * size);
  parallel_for(arguments.parallel_for, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      float* copy = copies + chunk * size;
      std::fill(copy, copy + size, 0.0f);
      TokenPass<Word> pass{arguments, copy, copy + size - 2 * stride, copy + size - stride};
      if (!pass.run(rows * chunk / chunks, rows * (chunk + 1) / chunks)) return;
    }
  });
  const auto add_up = [&](float* to, int64_t offset) {
    for (int64_t h = 0; h < hidden_size; ++h) {
      double total = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += double(copies[chunk * size + offset + h]);
      to[h] = float(total);
    }
  };
  for (int64_t i = 0; i < arguments.num_contexts; ++i) add_up(arguments.d_context + i * hidden_size, i * stride);
  add_up(arguments.d_ln_weight, size - 2 * stride);
  add_up(arguments.d_ln_bias, size - stride);
}

// Pass 2: the word gradient of ids [first, last), one register tile of the row at a time.
template <class Word>
struct WordPass {
  const WordGradientArguments& words;
  const BackwardArguments& arguments = words.tokens_pass;
  const Gather<Word> gather{arguments.table, arguments.tokens};
  const int64_t hidden_size = gather.hidden_size, stride = gather.stride;
  Buffer keep{stride};
  int64_t kept_row = -1, kept_column = -1;  // whose mask is in keep

  // Channels [h, h + vectors * lanes) of id u's row.
  template <int vectors, bool drop>
  void tile(int64_t u, int64_t h) {
    const int64_t end = words.id_start[u + 1], id = words.unique_ids[u];
    const int32_t* const sorted = words.sorted_tokens;
    const int64_t last = words.id_start[words.num_unique] - 1;
    const TokenGradient* const tokens = arguments.tokens_gradient;
    const float *const row_gradient = arguments.row_gradient + h, *const context = arguments.table.context + h;
    const int64_t context_stride = arguments.table.context_stride, row_stride = stride;
    float c_sum = 0, d_sum = 0;
    Vec total[vectors];
    for (Vec& t : total) t = broadcast(0);
    for (int64_t i = words.id_start[u]; i < end; ++i) {
      const TokenGradient token = tokens[sorted[i]];
      // The order of ids is random in memory: records are fetched 16 tokens ahead, the rows they name 4 ahead.
      __builtin_prefetch(tokens + sorted[std::min(i + 16, last)]);
      const float* ahead = row_gradient + tokens[sorted[std::min(i + 4, last)]].row * row_stride;
      for (int k = 0; k < vectors; ++k) __builtin_prefetch(ahead + k * lanes);
      const float *g = row_gradient + token.row * row_stride, *q = context + token.context * context_stride;
      const float* mask = drop ? keep_of(token) + h : nullptr;
      const Vec a = broadcast(token.a), c = broadcast(token.c);
      for (int k = 0; k < vectors; ++k) {
        const Vec gated = drop ? load(g + k * lanes) * load(mask + k * lanes) : load(g + k * lanes);
        total[k] += a * gated - c * load(q + k * lanes);
      }
      c_sum += token.c;
      d_sum += token.d;
    }
    const Word* word = gather.words + id * hidden_size + h;
    Word* to = static_cast<Word*>(words.d_word) + (words.compact ? u : id) * hidden_size + h;
    const int64_t rest = hidden_size - h;  // channels from here on; the last vector may be a part
    for (int k = 0; k < vectors; ++k) {
      const int count = vectors > 1 || rest >= lanes ? lanes : int(rest);
      const Vec w = count == lanes ? load(word + k * lanes) : load_partial(word + k * lanes, count);
      store_as(to + k * lanes, total[k] - broadcast(c_sum) * w + broadcast(d_sum), count);
    }
  }

  const float* keep_of(const TokenGradient& token) {
    if (token.row != kept_row || token.column != kept_column) {
      dropout_keep(arguments.dropout.seed, kept_row = token.row, kept_column = token.column, embed_stream,
                   arguments.dropout.p_embed, hidden_size, keep);
      for (int64_t h = hidden_size; h < stride; ++h) keep[h] = 0;
    }
    return keep;
  }

  template <bool drop>
  void tiles(int64_t u) {
    int64_t h = 0;
    for (; h + 8 * lanes <= hidden_size; h += 8 * lanes) tile<8, drop>(u, h);
    for (; h + 2 * lanes <= hidden_size; h += 2 * lanes) tile<2, drop>(u, h);
    for (; h < hidden_size; h += lanes) tile<1, drop>(u, h);
  }

  // Rows of a dense gradient that no token asks for are zeroed on the way, in the order of memory.
  void zero_rows(int64_t begin, int64_t end) const {
    if (!words.compact && begin < end)
      std::memset(static_cast<Word*>(words.d_word) + begin * hidden_size, 0, size_t(end - begin) * size_t(gather.row_bytes));
  }

  void run(int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) {
      zero_rows(u ? words.unique_ids[u - 1] + 1 : 0, words.unique_ids[u]);
      gather.prefetch_row(words.unique_ids[std::min(u + 4, words.num_unique - 1)]);
      if (arguments.dropout.p_embed > 0) tiles<true>(u);
      else tiles<false>(u);
    }
    if (last == words.num_unique) zero_rows(last ? words.unique_ids[last - 1] + 1 : 0, arguments.tokens.vocab_size);
  }
};

template <class Word>
inline void words_backward_of(const WordGradientArguments& words) {
  const BackwardArguments& arguments = words.tokens_pass;
  const int64_t num_tokens = words.id_start[words.num_unique];
  // Pieces of about 2048 tokens, cut between ids, so that frequent ids do not all fall to one thread.
  const int64_t pieces = std::max<int64_t>(1, num_tokens / 2048);
  const auto first_id = [&](int64_t piece) {  // the first id that starts at or after the piece's share of tokens
    int64_t low = 0, high = words.num_unique;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (words.id_start[middle] < num_tokens * piece / pieces) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  parallel_for(arguments.parallel_for, pieces, 1, [&](int64_t begin, int64_t end) {
    WordPass<Word> pass{words};
    pass.run(first_id(begin), end == pieces ? words.num_unique : first_id(end));
  });
}

inline void tokens_backward(const BackwardArguments& arguments) {
  switch (arguments.table.word_type) {
    case WordType::float32: return tokens_backward_of<float>(arguments);
    case WordType::bfloat16: return tokens_backward_of<bfloat16>(arguments);
    default: return tokens_backward_of<float16>(arguments);
  }
}

inline void words_backward(const WordGradientArguments& words) {
  switch (words.tokens_pass.table.word_type) {
    case WordType::float32: return words_backward_of<float>(words);
    case WordType::bfloat16: return words_backward_of<bfloat16>(words);
    default: return words_backward_of<float16>(words);
  }
}

}  // namespace
