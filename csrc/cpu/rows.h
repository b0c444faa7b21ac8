// Rows over threads. Usually a thread takes whole rows, sixteen at a time; where one row is longer than a thread's
// share, the threads take segments and their sums are added up afterwards, in the same order and so to the same bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "arguments.h"
#include "segments.h"

namespace dendritic_bert {
namespace {

constexpr int64_t block_rows = 16;
// Fewer elements than this are not worth waking a thread for: 2^18 take about 20 us, a wake-up 5 to 10.
constexpr int64_t elements_per_thread = 1 << 18;

template <class F>
inline void parallel_for(ParallelFor run, int64_t end, int64_t grain, const F& body) {
  run(0, end, grain, [](int64_t first, int64_t last, void* context) { (*static_cast<const F*>(context))(first, last); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// The next segments of rows [row, last_row), at most max_segments; every row has at least one, if an empty one.
inline int64_t next_segments(const Tokens& tokens, int64_t& row, int64_t& column, int64_t last_row, Segment* segments) {
  int64_t n = 0;
  while (row < last_row && n < max_segments) {
    const int64_t length = tokens.row_length(row), end = std::min(length, column + segment_length);
    segments[n++] = {row, column, end};
    if (end == length) { ++row; column = 0; } else { column = end; }
  }
  return n;
}

// Sums of pooled segments: [n, stride] each, keep_counts only with dropout on x.
struct Sums {
  int64_t stride;
  Buffer sum, keep_count;
  int64_t* count;
  Sums(int64_t n, int64_t stride_, bool drop)
      : stride(stride_), sum(n * stride_), keep_count(drop ? n * stride_ : 0),
        count(static_cast<int64_t*>(std::malloc(size_t(n) * sizeof(int64_t)))), drop_(drop) {}
  ~Sums() { std::free(count); }
  float* keep_counts(int64_t i) const { return drop_ ? keep_count + i * stride : nullptr; }

  // Row i (+)= entry j of `from`: the first segment of a row sets, the following ones add.
  void take(int64_t i, bool first, const Sums& from, int64_t j) {
    count[i] = (first ? 0 : count[i]) + from.count[j];
    take_row(sum + i * stride, first, from.sum + j * stride);
    if (drop_) take_row(keep_count + i * stride, first, from.keep_count + j * stride);
  }

 private:
  bool drop_;
  void take_row(float* to, bool first, const float* from) const {
    if (first) std::copy(from, from + stride, to);
    else for (int64_t h = 0; h < stride; ++h) to[h] += from[h];
  }
};

// pooled = sum * scale, and the share of beta it holds: 1 in a mean, the count in a sum, 0 in an empty row.
inline void pooling_factors(Pooling pooling, int64_t count, float& scale, float& beta_share) {
  scale = pooling == Pooling::sum_all ? 1.0f : 1.0f / float(std::max<int64_t>(count, 1));
  beta_share = pooling == Pooling::sum_all ? float(count) : float(count > 0);
}

// A row so long that a thread would wait for it: longer than half of a thread's share of all tokens.
inline bool has_dominant_row(const Tokens& tokens, int64_t elements_per_token, int num_threads) {
  if (num_threads == 1 || tokens.total * elements_per_token < 2 * elements_per_thread) return false;
  const int64_t limit = std::max(segment_length, tokens.total / (2 * num_threads));
  for (int64_t row = 0; row < tokens.rows; ++row)
    if (tokens.row_length(row) > limit) return true;
  return false;
}

// Blocks of rows over threads; finish(first_row, num_rows, const Sums&) for each.
template <class Pooler, class Finish>
inline void pool_row_blocks(const Pooler& pooler, bool drop, ParallelFor run,
                            const Finish& finish) {
  const Tokens& tokens = pooler.tokens;
  const int64_t blocks = (tokens.rows + block_rows - 1) / block_rows;
  const int64_t elements = std::max<int64_t>(1, tokens.total * pooler.elements_per_token / std::max<int64_t>(1, blocks));
  parallel_for(run, blocks, std::max<int64_t>(1, elements_per_thread / elements), [&](int64_t begin, int64_t end) {
    const int64_t needed = std::min(max_segments, tokens.rows + tokens.total / segment_length);
    Sums partial(needed, pooler.stride, drop), rows(std::min(block_rows, tokens.rows), pooler.stride, drop);
    Segment segments[max_segments];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * block_rows, last = std::min(tokens.rows, first + block_rows);
      int64_t row = first, column = 0;
      while (const int64_t n = next_segments(tokens, row, column, last, segments)) {
        if (!pool_segments(pooler, segments, n, partial.sum, partial.count, partial.keep_counts(0))) return;
        for (int64_t s = 0; s < n; ++s) rows.take(segments[s].row - first, segments[s].begin == 0, partial, s);
      }
      finish(first, last - first, rows);
    }
  });
}

// Segments over threads, then one pass that adds them up: 1 / 256 of the work, so it stays on one thread.
template <class Pooler, class Finish>
inline void pool_split_rows(const Pooler& pooler, bool drop, ParallelFor run,
                            const Finish& finish) {
  const Tokens& tokens = pooler.tokens;
  int64_t num_segments = 0;
  for (int64_t row = 0; row < tokens.rows; ++row)
    num_segments += std::max<int64_t>(1, (tokens.row_length(row) + segment_length - 1) / segment_length);
  Segment* segments = static_cast<Segment*>(std::malloc(size_t(num_segments) * sizeof(Segment)));
  int64_t row = 0, column = 0;
  for (int64_t s = 0; row < tokens.rows;) s += next_segments(tokens, row, column, tokens.rows, segments + s);

  Sums partial(num_segments, pooler.stride, drop);
  bool good = true;
  parallel_for(run, num_segments, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s += max_segments)
      if (!pool_segments(pooler, segments + s, std::min(max_segments, end - s), partial.sum + s * pooler.stride,
                         partial.count + s, partial.keep_counts(s)))
        __atomic_store_n(&good, false, __ATOMIC_RELAXED);
  });
  Sums rows(block_rows, pooler.stride, drop);
  for (int64_t s = 0, first = 0; good && s < num_segments; ++s) {
    rows.take(segments[s].row - first, segments[s].begin == 0, partial, s);
    const bool row_done = s + 1 == num_segments || segments[s + 1].row != segments[s].row;
    const int64_t num_rows = segments[s].row - first + 1;
    if (row_done && (num_rows == block_rows || s + 1 == num_segments)) {
      finish(first, num_rows, rows);
      first += num_rows;
    }
  }
  std::free(segments);
}

// Pools every row; finish(first_row, num_rows, const Sums&) for each block of at most block_rows rows.
template <class Pooler, class Finish>
inline void pool_rows(const Pooler& pooler, bool drop, int num_threads, ParallelFor run, const Finish& finish) {
  if (has_dominant_row(pooler.tokens, pooler.elements_per_token, num_threads))
    pool_split_rows(pooler, drop, run, finish);
  else
    pool_row_blocks(pooler, drop, run, finish);
}

}  // namespace
}  // namespace dendritic_bert
