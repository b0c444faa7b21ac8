// The two forward kernels: ids to logits for inference, ids to pooled rows for training.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "head.h"
#include "philox.h"
#include "pool.h"
#include "rows.h"

namespace dendritic_bert {
namespace {

template <class Word>
inline void logits_of(const LogitsArguments& arguments) {
  const Gather<Word> gather{arguments.table, arguments.tokens};
  const Head& head = arguments.head;
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels;
  pool_rows(gather, false, arguments.num_threads, arguments.parallel_for,
            [&](int64_t first_row, int64_t num_rows, const Sums& rows) {
    Buffer z(head_rows * outputs);
    float beta_share[block_rows];
    for (int64_t i = 0; i < num_rows; ++i) {
      float scale;
      pooling_factors(arguments.tokens.pooling, rows.count[i], scale, beta_share[i]);
      for (int64_t h = 0; h < gather.stride; ++h) rows.sum[i * gather.stride + h] *= scale;
    }
    for (int64_t i = 0; i < num_rows; i += head_rows) {
      const int n = int(std::min<int64_t>(head_rows, num_rows - i));
      head_products(head, gather.hidden_size, rows.sum + i * gather.stride, gather.stride, n, beta_share + i, z);
      for (int r = 0; r < n; ++r)
        cascade(head, z + r * outputs, arguments.logits + (first_row + i + r) * head.num_labels);
    }
  });
}

template <class Word>
inline void pooled_of(const ForwardArguments& arguments) {
  const Dropout& dropout = arguments.dropout;
  const Training training{arguments.rstd, &dropout};
  const Gather<Word> gather{arguments.table, arguments.tokens, &training};
  const int64_t hidden_size = gather.hidden_size;
  const bool drop_embed = dropout.p_embed > 0, drop_pool = dropout.p_pool > 0;
  const float embed_scale = float(1 / (1 - dropout.p_embed)), pool_scale = float(1 / (1 - dropout.p_pool));
  pool_rows(gather, drop_embed, arguments.num_threads, arguments.parallel_for,
            [&](int64_t first_row, int64_t num_rows, const Sums& rows) {
    Buffer keep(drop_pool ? gather.stride : 0);
    for (int64_t i = 0; i < num_rows; ++i) {
      float scale, beta_share;
      pooling_factors(arguments.tokens.pooling, rows.count[i], scale, beta_share);
      const float* sum = rows.sum + i * gather.stride;
      const float* keep_count = rows.keep_counts(i);
      float* hat = arguments.pooled_hat + (first_row + i) * hidden_size;
      float* pooled = arguments.pooled + (first_row + i) * hidden_size;
      if (drop_pool) dropout_keep(dropout.seed, first_row + i, 0, pool_stream, dropout.p_pool, hidden_size, keep);
      for (int64_t h = 0; h < hidden_size; ++h) {
        const float share = drop_embed ? keep_count[h] * embed_scale * scale : beta_share;
        hat[h] = sum[h] * (drop_embed ? embed_scale * scale : scale);
        pooled[h] = hat[h] * arguments.ln_weight[h] + share * arguments.ln_bias[h];
        if (drop_pool) pooled[h] *= keep[h] * pool_scale;
      }
    }
  });
}

inline void logits(const LogitsArguments& arguments) {
  switch (arguments.table.word_type) {
    case WordType::float32: return logits_of<float>(arguments);
    case WordType::bfloat16: return logits_of<bfloat16>(arguments);
    case WordType::float16: return logits_of<float16>(arguments);
    case WordType::int8: return logits_of<int8_t>(arguments);
    case WordType::float8_e4m3: return;  // the binding refuses it
  }
}

inline void forward(const ForwardArguments& arguments) {
  switch (arguments.table.word_type) {
    case WordType::float32: return pooled_of<float>(arguments);
    case WordType::bfloat16: return pooled_of<bfloat16>(arguments);
    case WordType::float16: return pooled_of<float16>(arguments);
    default: return;  // the binding admits no int8 table in training
  }
}

}  // namespace
}  // namespace dendritic_bert
