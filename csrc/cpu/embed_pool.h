// Training's forward: ids to pooled rows.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "dropout.h"
#include "gather_layernorm_pool.h"
#include "rows_over_threads.h"

namespace dendritic_bert {
namespace {

template <class Word>
inline void compute_pooled(const EmbedPoolArguments& arguments) {
  const Dropout& dropout = arguments.dropout;
  const Training training{arguments.rstd, &dropout};
  const FullWidthPooler<Word> pooler{arguments.table, arguments.tokens, &training};
  const int64_t hidden_size = pooler.hidden_size;
  const bool drop_embed = dropout.p_embed > 0, drop_pool = dropout.p_pool > 0;
  const float embed_scale = dropout_scale(dropout.p_embed), pool_scale = dropout_scale(dropout.p_pool);
  pool_rows(pooler, drop_embed, arguments.num_threads, arguments.parallel_for,
            [&](int64_t first_row, int64_t num_rows, const Sums& rows) {
    Buffer keep(drop_pool ? pooler.stride : 0);
    for (int64_t i = 0; i < num_rows; ++i) {
      float scale, beta_share;
      pooling_factors(arguments.tokens.pooling, rows.count[i], scale, beta_share);
      const float* sum = rows.sum + i * pooler.stride;
      const float* keep_count = rows.keep_counts(i);
      float* pooled_hat = arguments.pooled_hat + (first_row + i) * hidden_size;
      float* pooled = arguments.pooled + (first_row + i) * hidden_size;
      if (drop_pool) dropout_keep(dropout.seed, first_row + i, 0, pool_stream, dropout.p_pool, hidden_size, keep);
      for (int64_t h = 0; h < hidden_size; ++h) {
        const float share = drop_embed ? keep_count[h] * embed_scale * scale : beta_share;
        pooled_hat[h] = sum[h] * (drop_embed ? embed_scale * scale : scale);
        pooled[h] = pooled_hat[h] * arguments.ln_weight[h] + share * arguments.ln_bias[h];
        if (drop_pool) pooled[h] *= keep[h] * pool_scale;
      }
    }
  });
}

inline void embed_pool(const EmbedPoolArguments& arguments) {
  switch (arguments.table.word_type) {
    case WordType::float32: return compute_pooled<float>(arguments);
    case WordType::bfloat16: return compute_pooled<bfloat16>(arguments);
    case WordType::float16: return compute_pooled<float16>(arguments);
    default: return;  // the binding refuses 8-bit tables in training
  }
}

}  // namespace
}  // namespace dendritic_bert
