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
    const float pool_scale = float(1 / (1 - dropout.p_pool));
    const float* hat = arguments.pooled_hat + row * hidden_size;
    const float* grad = arguments.grad_pooled + row * hidden_size;
    float* row_gradient = arguments.row_gradient + row * stride;
    row_gradient_sum = 0;
    for (int64_t h = 0; h < hidden_size; ++h) {
      const float g = dropout.p_pool > 0 ? grad[h] * keep[h] * pool_scale : grad[h];
      pooled_gradient[h] = g * scale;
      row_gradient[h] = pooled_gradient[h] * arguments.ln_weight[h];
      row_gradient_sum += row_gradient[h];
      d_ln_weight[h] += g * hat[h];
      if (!drop) d_ln_bias[h] += g * beta_share;
      keep_count[h] = 0;
    }
    for (int64_t h = hidden_size; h < stride; ++h) row_gradient[h] = 0;
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
        const int64_t filled = gather.fill(segments + s, n - s, list, starts);
        if (filled < 0) return false;
        for (int64_t k = 0; k < filled; ++k, ++s) {
          if (segments[s].begin == 0) begin_row(segments[s].row);
          for (int64_t i = starts[k]; i < starts[k + 1]; i += group_size)
            group(segments[s], list, i, int(std::min<int64_t>(group_size, starts[k + 1] - i)));
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
      float total = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += copies[chunk * size + offset + h];
      to[h] = total;
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
  const bool drop = arguments.dropout.p_embed > 0;
  Buffer row{stride}, keep{stride};
  int64_t kept_row = -1, kept_column = -1;  // whose mask is in keep

  template <int vectors>
  void tile(int64_t begin, int64_t end, int64_t h) {
    Vec total[vectors];
    for (Vec& t : total) t = broadcast(0);
    for (int64_t i = begin; i < end; ++i) {
      const TokenGradient& token = arguments.tokens_gradient[words.sorted_tokens[i]];
      const float* g = arguments.row_gradient + token.row * stride + h;
      const float* context = arguments.table.context + token.context * arguments.table.context_stride + h;
      const Vec a = broadcast(token.a), c = broadcast(token.c);
      for (int k = 0; k < vectors; ++k) {
        Vec gated = load(g + k * lanes);
        if (drop) gated *= load(keep_of(token) + h + k * lanes);
        total[k] += a * gated - c * load(context + k * lanes);
      }
    }
    for (int k = 0; k < vectors; ++k) store(row + h + k * lanes, total[k]);
  }

  const float* keep_of(const TokenGradient& token) {
    if (token.row != kept_row || token.column != kept_column) {
      dropout_keep(arguments.dropout.seed, kept_row = token.row, kept_column = token.column, embed_stream,
                   arguments.dropout.p_embed, hidden_size, keep);
      for (int64_t h = hidden_size; h < stride; ++h) keep[h] = 0;
    }
    return keep;
  }

  void run(int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) {
      const int64_t begin = words.id_start[u], end = words.id_start[u + 1], id = words.unique_ids[u];
      int64_t h = 0;
      for (; h + 8 * lanes <= stride; h += 8 * lanes) tile<8>(begin, end, h);
      for (; h + 2 * lanes <= stride; h += 2 * lanes) tile<2>(begin, end, h);
      if (h < stride) tile<1>(begin, end, h);
      float c_sum = 0, d_sum = 0;
      for (int64_t i = begin; i < end; ++i) {
        c_sum += arguments.tokens_gradient[words.sorted_tokens[i]].c;
        d_sum += arguments.tokens_gradient[words.sorted_tokens[i]].d;
      }
      const Word* word = gather.words + id * hidden_size;
      Word* to = static_cast<Word*>(words.d_word) + (words.compact ? u : id) * hidden_size;
      for (int64_t i = 0; i < hidden_size; ++i) from_float(row[i] - c_sum * to_float(word[i]) + d_sum, to[i]);
    }
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
