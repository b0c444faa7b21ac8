// Pools splits, the parts that rows are cut into (tokens.h), with one of the poolers: FullWidthPooler
// (gather_layernorm_pool.h) or FoldedPooler (dsn_logits_folded.h). A pooler has the members tokens, stride,
// elements_per_token, prefetch_distance, prefetch(list, i), Scratch and pool(...).
#pragma once

#include <algorithm>
#include <cstdint>

#include "tokens.h"

namespace dendritic_bert {
namespace {

constexpr int64_t max_splits = 64;  // that are pooled together, so that prefetching crosses from row to row

// Fills the list with as many whole splits as fit and prefetches the first tokens. Returns the number n of splits, or
// -1 if an index is outside its table. Split s begins at starts[s] of the list, and the last one ends at starts[n].
template <class Pooler>
inline int64_t fill_list(const Pooler& pooler, const Split* splits, int64_t num_splits, TokenList& list,
                         int64_t* starts) {
  list.size = starts[0] = 0;
  int64_t n = 0;
  for (; n < num_splits && list.size + splits[n].end - splits[n].begin <= list_capacity; ++n) {
    if (!append(pooler.tokens, splits[n], list)) return -1;
    starts[n + 1] = list.size;
  }
  for (int64_t i = 0; i < max_prefetch_distance; ++i) {
    list.id[list.size + i] = list.size ? list.id[list.size - 1] : 0;
    list.context[list.size + i] = list.size ? list.context[list.size - 1] : 0;
  }
  for (int64_t i = 0; i < std::min<int64_t>(pooler.prefetch_distance, list.size); ++i) pooler.prefetch(list, i);
  return n;
}

// Pools at most max_splits splits: partial[s] is the sum over the valid tokens of splits[s], counts[s] their number.
// Under dropout on the embeddings, keep_counts[s] is the number of tokens that keep each channel; otherwise it is null.
// Returns false if an index is outside its table.
template <class Pooler>
inline bool pool_splits(const Pooler& pooler, const Split* splits, int64_t num_splits, float* partial, int64_t* counts,
                        float* keep_counts) {
  typename Pooler::Scratch scratch(pooler);
  TokenList list;
  int64_t starts[max_splits + 1];
  for (int64_t s = 0; s < num_splits;) {
    const int64_t filled = fill_list(pooler, splits + s, num_splits - s, list, starts);
    if (filled < 0) return false;
    for (int64_t k = 0; k < filled; ++k, ++s) {
      float* acc = partial + s * pooler.stride;
      float* keep_count = keep_counts ? keep_counts + s * pooler.stride : nullptr;
      std::fill(acc, acc + pooler.stride, 0.0f);
      if (keep_count) std::fill(keep_count, keep_count + pooler.stride, 0.0f);
      counts[s] = starts[k + 1] - starts[k];
      pooler.pool(scratch, splits[s], list, starts[k], starts[k + 1], acc, keep_count);
    }
  }
  return true;
}

}  // namespace
}  // namespace dendritic_bert
