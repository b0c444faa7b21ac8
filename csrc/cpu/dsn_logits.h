// Inference with full-width tables: ids to logits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "gather_layernorm_pool.h"
#include "head.h"
#include "rows_over_threads.h"

namespace dendritic_bert {
namespace {

template <class Word>
inline void compute_logits(const LogitsArguments& arguments) {
  const FullWidthPooler<Word> pooler{arguments.table, arguments.tokens};
  const Head& head = arguments.head;
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels;
  pool_rows(pooler, false, arguments.num_threads, arguments.parallel_for,
            [&](int64_t first_row, int64_t num_rows, const Sums& rows) {
    Buffer z(head_rows * outputs);
    float beta_share[block_rows];
    for (int64_t i = 0; i < num_rows; ++i) {
      float scale;
      pooling_factors(arguments.tokens.pooling, rows.count[i], scale, beta_share[i]);
      for (int64_t h = 0; h < pooler.stride; ++h) rows.sum[i * pooler.stride + h] *= scale;
    }
    for (int64_t i = 0; i < num_rows; i += head_rows) {
      const int n = int(std::min<int64_t>(head_rows, num_rows - i));
      multiply_head(head, pooler.hidden_size, rows.sum + i * pooler.stride, pooler.stride, n, z);
      for (int r = 0; r < n; ++r) {
        for (int64_t o = 0; o < outputs; ++o) z[r * outputs + o] += beta_share[i + r] * head.beta_bias[o];
        run_cascade(head, z + r * outputs, arguments.logits + (first_row + i + r) * head.num_labels);
      }
    }
  });
}

inline void dsn_logits(const LogitsArguments& arguments) {
  switch (arguments.table.word_type) {
    case WordType::float32: return compute_logits<float>(arguments);
    case WordType::bfloat16: return compute_logits<bfloat16>(arguments);
    case WordType::float16: return compute_logits<float16>(arguments);
    case WordType::int8: return compute_logits<int8_t>(arguments);
    case WordType::float8_e4m3: return;  // the binding refuses it
  }
}

}  // namespace
}  // namespace dendritic_bert
