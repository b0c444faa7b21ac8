// Inference with the head folded into the tables: a token is one factor and one short row, whatever the hidden size.
//   z = sum over the tokens of rstd[id, context] * (word[id] + context[c])
// Both tables are projected onto the head's outputs beforehand (weights.fold), where the sum and the head may change
// places because both are linear; what is not, the LayerNorm's factor, is one float for each id and position.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arguments.h"
#include "head.h"
#include "rows.h"
#include "segments.h"

namespace dendritic_bert {
namespace {

constexpr uint32_t position_tile = 16;  // positions of an id that share a cache line

struct FoldedGather {
  const Folded& folded;
  const Tokens& tokens;
  const int64_t stride = folded.stride;
  const int64_t elements_per_token = 16 + stride;  // a token costs what 16 channels cost unfolded, or more
  static constexpr int64_t prefetch_distance = max_prefetch_distance;

  const float* rstd(const TokenList& list, int64_t i) const {
    const uint32_t context = uint32_t(list.context[i]);  // unsigned, so that / and % are a shift and a mask
    return folded.rstd + (context / position_tile * tokens.vocab_size + list.id[i]) * position_tile +
           context % position_tile;
  }

  // What one pass over the tokens takes of them: the factor and `width` outputs from `offset` on.
  template <int width = 16>
  void prefetch(const TokenList& list, int64_t i, int64_t offset = 0) const {
    prefetch_line(rstd(list, i));
    for (int64_t output = 0; output < width; output += 16)
      prefetch_line(folded.word + list.id[i] * stride + offset + output);
  }

  // `width` outputs from `offset` on. Two sums, so that an addition need not wait for the one before.
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
      // Shorter rows' table is 1 MB at most of BERT's words: their tokens take 3.0 ns each, 3.4 with two prefetches; from
      // cold caches 18.0 and 16.2.
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
    explicit Scratch(const FoldedGather&) {}
  };

  void pool(Scratch&, const Segment&, const TokenList& list, int64_t first, int64_t last, float* acc, float*) const {
    if (stride == 4) return pool_outputs<4>(list, first, last, 0, acc);
    if (stride == 8) return pool_outputs<8>(list, first, last, 0, acc);
    int64_t offset = 0;
    // As many outputs a pass as both sums leave registers for.
#if defined(__AVX512F__)
    for (; offset + 64 <= stride; offset += 64) pool_outputs<64>(list, first, last, offset, acc);
#endif
#if defined(__AVX2__)
    for (; offset + 32 <= stride; offset += 32) pool_outputs<32>(list, first, last, offset, acc);
#endif
    for (; offset < stride; offset += 16) pool_outputs<16>(list, first, last, offset, acc);
  }
};

inline void folded_logits(const FoldedArguments& arguments) {
  const FoldedGather gather{arguments.folded, arguments.tokens};
  const Head& head = arguments.head;
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels;
  pool_rows(gather, false, arguments.num_threads, arguments.parallel_for,
            [&](int64_t first_row, int64_t num_rows, const Sums& rows) {
    for (int64_t i = 0; i < num_rows; ++i) {
      float scale, beta_share;
      pooling_factors(arguments.tokens.pooling, rows.count[i], scale, beta_share);
      float* z = rows.sum + i * gather.stride;
      for (int64_t o = 0; o < outputs; ++o) z[o] = z[o] * scale + head.bias[o] + beta_share * head.beta_bias[o];
      cascade(head, z, arguments.logits + (first_row + i) * head.num_labels);
    }
  });
}

}  // namespace
}  // namespace dendritic_bert
