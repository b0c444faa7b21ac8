// Segments of rows through one of the poolers (pool.h: Gather, folded.h: FoldedGather), which have
//   tokens, stride, elements_per_token, prefetch_distance, prefetch(list, i), Scratch and pool(...).
#pragma once

#include <algorithm>
#include <cstdint>

#include "tokens.h"

namespace dendritic_bert {
namespace {

constexpr int64_t max_segments = 64;  // pooled together: their tokens are one list, prefetched across rows

// Appends whole segments while they fit; segment s begins at starts[s] in the list, and starts[n] is its end.
// Returns their number n, or -1 after a bad index.
template <class Pooler>
inline int64_t fill(const Pooler& pooler, const Segment* segments, int64_t num_segments, TokenList& list,
                    int64_t* starts) {
  list.size = starts[0] = 0;
  int64_t n = 0;
  for (; n < num_segments && list.size + segments[n].end - segments[n].begin <= list_capacity; ++n) {
    if (!append(pooler.tokens, segments[n], list)) return -1;
    starts[n + 1] = list.size;
  }
  for (int64_t i = 0; i < max_prefetch_distance; ++i) {
    list.id[list.size + i] = list.size ? list.id[list.size - 1] : 0;
    list.context[list.size + i] = list.size ? list.context[list.size - 1] : 0;
  }
  for (int64_t i = 0; i < std::min<int64_t>(pooler.prefetch_distance, list.size); ++i) pooler.prefetch(list, i);
  return n;
}

// partial[s] = the pooled tokens of segments[s], counts[s] = their number, for at most max_segments of them. With
// dropout on x, keep_counts[s] holds for each channel how many tokens kept it. False after a bad index.
template <class Pooler>
inline bool pool_segments(const Pooler& pooler, const Segment* segments, int64_t num_segments, float* partial,
                          int64_t* counts, float* keep_counts) {
  typename Pooler::Scratch scratch(pooler);
  TokenList list;
  int64_t starts[max_segments + 1];
  for (int64_t s = 0; s < num_segments;) {
    const int64_t filled = fill(pooler, segments + s, num_segments - s, list, starts);
    if (filled < 0) return false;
    for (int64_t k = 0; k < filled; ++k, ++s) {
      float* acc = partial + s * pooler.stride;
      float* keep_count = keep_counts ? keep_counts + s * pooler.stride : nullptr;
      std::fill(acc, acc + pooler.stride, 0.0f);
      if (keep_count) std::fill(keep_count, keep_count + pooler.stride, 0.0f);
      counts[s] = starts[k + 1] - starts[k];
      pooler.pool(scratch, segments[s], list, starts[k], starts[k + 1], acc, keep_count);
    }
  }
  return true;
}

}  // namespace
}  // namespace dendritic_bert
