// Inference with folded tables: a token is one factor and one short row, whatever the hidden size.
//   z = sum over the valid tokens of rstd[id, context] * (word[id] + context[c])
// Both tables have been projected onto the head's outputs (fold in kernels/prepare.py): the sum and the head's matrix
// may change places because both are linear. LayerNorm's factor is not, so it is kept, one float per id and context.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "head.h"
#include "rows_over_threads.h"
#include "simd.h"

namespace dendritic_bert {
namespace {

struct FoldedPooler {
  const Folded& folded;
  const Tokens& tokens;
  const int64_t stride = folded.stride;
  const int64_t elements_per_token = 16 + stride;  // a token costs at least what 16 channels of a full-width one cost
  static constexpr int64_t prefetch_distance = max_prefetch_distance;

  const float* rstd(const TokenList& list, int64_t i) const {
    constexpr uint32_t tile = position_tile;
    const uint32_t context = uint32_t(list.context[i]);  // unsigned, so that / and % are a shift and a mask
    return folded.rstd + (context / tile * tokens.vocab_size + list.id[i]) * tile + context % tile;
  }

  // Prefetches what a pass of pool_outputs reads of token i.
  template <int width = 16>
  void prefetch(const TokenList& list, int64_t i, int64_t offset = 0) const {
    prefetch_line(rstd(list, i));
    for (int64_t output = 0; output < width; output += 16)
      prefetch_line(folded.word + list.id[i] * stride + offset + output);
  }

  // Pools outputs [offset, offset + width) of tokens [first, last). Two sums, so that an addition need not wait for the
  // one before.
  template <int width>
  void pool_outputs(const TokenList& list, int64_t first, int64_t last, int64_t offset, float* acc) const {
    typedef float Outputs __attribute__((vector_size(width * sizeof(float))));  // GCC ignores it in a dependent `using`
    static_assert(sizeof(Outputs) == width * sizeof(float), "a whole vector");
    Outputs even{}, odd{};
    const auto add = [&](Outputs& total, int64_t i) {
      Outputs word, context;
      std::memcpy(&word, folded.word + list.id[i] * stride + offset, sizeof(word));
      std::memcpy(&context, folded.context + list.context[i] * stride + offset, sizeof(context));
      total += (word + context) * *rstd(list, i);
    };
    int64_t i = first;
    for (; i + 2 <= last; i += 2) {
      // The table of BERT's words with narrower rows takes 1 MB at most. There a token takes 3.0 ns, and 3.4 ns with
      // two prefetches; from cold caches 18.0 and 16.2.
      if constexpr (width >= 16) {
        prefetch<width>(list, i + prefetch_distance, offset);
        prefetch<width>(list, i + 1 + prefetch_distance, offset);
      }
      add(even, i);
      add(odd, i + 1);
    }
    if (i < last) add(even, i);
    even += odd;
    std::memcpy(acc + offset, &even, sizeof(even));
  }

  struct Scratch {
    explicit Scratch(const FoldedPooler&) {}
  };

  void pool(Scratch&, const Split&, const TokenList& list, int64_t first, int64_t last, float* acc, float*) const {
    if (stride == 4) return pool_outputs<4>(list, first, last, 0, acc);
    if (stride == 8) return pool_outputs<8>(list, first, last, 0, acc);
    int64_t offset = 0;
    // As many outputs per pass as both sums leave registers for.
#if defined(__AVX512F__)
    for (; offset + 64 <= stride; offset += 64) pool_outputs<64>(list, first, last, offset, acc);
#endif
#if defined(__AVX2__)
    for (; offset + 32 <= stride; offset += 32) pool_outputs<32>(list, first, last, offset, acc);
#endif
    for (; offset < stride; offset += 16) pool_outputs<16>(list, first, last, offset, acc);
  }
};

inline void dsn_logits_folded(const FoldedLogitsArguments& arguments) {
  const FoldedPooler pooler{arguments.folded, arguments.tokens};
  const Head& head = arguments.head;
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels;
  pool_rows(pooler, false, arguments.num_threads, arguments.parallel_for,
            [&](int64_t first_row, int64_t num_rows, const Sums& rows) {
    for (int64_t i = 0; i < num_rows; ++i) {
      float scale, beta_share;
      pooling_factors(arguments.tokens.pooling, rows.count[i], scale, beta_share);
      float* z = rows.sum + i * pooler.stride;
      for (int64_t o = 0; o < outputs; ++o) z[o] = z[o] * scale + head.bias[o] + beta_share * head.beta_bias[o];
      run_cascade(head, z, arguments.logits + (first_row + i) * head.num_labels);
    }
  });
}

}  // namespace
}  // namespace dendritic_bert
