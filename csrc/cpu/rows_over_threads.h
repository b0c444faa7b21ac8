// Distributes rows over threads. Usually a thread takes whole rows, sixteen at a time. Where one row is longer than
// half of a thread's share of the batch, the threads take splits of rows instead, whose sums are added up afterwards in
// the same order and therefore to the same bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "splits.h"

namespace dendritic_bert {
namespace {

constexpr int64_t block_rows = 16;
// It does not pay to wake a thread for fewer elements than this: 2^18 take about 20 us, waking a thread 5 to 10.
constexpr int64_t elements_per_thread = 1 << 18;

// Calls body(begin, end) on torch's threads for ranges of at least `grain` that together make up [0, end).
template <class F>
inline void parallel_for(ParallelFor run, int64_t end, int64_t grain, const F& body) {
  run(0, end, grain, [](int64_t first, int64_t last, void* context) { (*static_cast<const F*>(context))(first, last); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Cuts rows [row, last_row) into splits from column `column` of the first one on, at most max_splits of them. Returns
// their number and moves `row` and `column` behind them. An empty row has one split, which is empty.
inline int64_t next_splits(const Tokens& tokens, int64_t& row, int64_t& column, int64_t last_row, Split* splits) {
  int64_t n = 0;
  while (row < last_row && n < max_splits) {
    const int64_t length = tokens.row_length(row), end = std::min(length, column + split_columns);
    splits[n++] = {row, column, end};
    if (end == length) {
      ++row;
      column = 0;
    } else {
      column = end;
    }
  }
  return n;
}

// The sums of n splits or rows. keep_count is used only under dropout on the embeddings.
struct Sums {
  int64_t stride;
  Buffer sum, keep_count;  // [n, stride]
  Array<int64_t> count;    // [n] valid tokens
  Sums(int64_t n, int64_t stride_, bool drop)
      : stride(stride_), sum(n * stride_), keep_count(drop ? n * stride_ : 0), count(n), drop_(drop) {}
  float* keep_counts(int64_t i) const { return drop_ ? keep_count + i * stride : nullptr; }

  // Adds entry j of `from` to entry i, or sets entry i to it if it is the first split of a row.
  void add(int64_t i, bool first, const Sums& from, int64_t j) {
    count[i] = (first ? 0 : count[i]) + from.count[j];
    add_channels(sum + i * stride, first, from.sum + j * stride);
    if (drop_) add_channels(keep_count + i * stride, first, from.keep_count + j * stride);
  }

 private:
  bool drop_;
  void add_channels(float* to, bool first, const float* from) const {
    if (first) std::copy(from, from + stride, to);
    else
      for (int64_t h = 0; h < stride; ++h) to[h] += from[h];
  }
};

// A pooled row is sum * scale * gamma + beta_share * beta: beta_share is 1 in a mean, the number of valid tokens in a
// sum and 0 in an empty row.
inline void pooling_factors(Pooling pooling, int64_t count, float& scale, float& beta_share) {
  scale = pooling == Pooling::sum_all ? 1.0f : 1.0f / float(std::max<int64_t>(count, 1));
  beta_share = pooling == Pooling::sum_all ? float(count) : float(count > 0);
}

// Whether a row is so long that the other threads would wait for it: longer than half of a thread's share of the
// tokens.
inline bool has_dominant_row(const Tokens& tokens, int64_t elements_per_token, int num_threads) {
  if (num_threads == 1 || tokens.total * elements_per_token < 2 * elements_per_thread) return false;
  const int64_t limit = std::max(split_columns, tokens.total / (2 * num_threads));
  for (int64_t row = 0; row < tokens.rows; ++row)
    if (tokens.row_length(row) > limit) return true;
  return false;
}

// Calls body(begin, end) on the threads for ranges of the blocks of block_rows rows.
template <class F>
inline void for_row_blocks(const Tokens& tokens, int64_t elements_per_token, ParallelFor run, const F& body) {
  const int64_t blocks = (tokens.rows + block_rows - 1) / block_rows;
  const int64_t elements = std::max<int64_t>(1, tokens.total * elements_per_token / std::max<int64_t>(1, blocks));
  parallel_for(run, blocks, std::max<int64_t>(1, elements_per_thread / elements), body);
}

// Distributes blocks of rows over the threads and calls finish(first_row, num_rows, const Sums&) for each.
template <class Pooler, class Finish>
inline void pool_row_blocks(const Pooler& pooler, bool drop, ParallelFor run, const Finish& finish) {
  const Tokens& tokens = pooler.tokens;
  for_row_blocks(tokens, pooler.elements_per_token, run, [&](int64_t begin, int64_t end) {
    const int64_t needed = std::min(max_splits, tokens.rows + tokens.total / split_columns);
    Sums partial(needed, pooler.stride, drop), rows(std::min(block_rows, tokens.rows), pooler.stride, drop);
    Split splits[max_splits];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * block_rows, last = std::min(tokens.rows, first + block_rows);
      int64_t row = first, column = 0;
      while (const int64_t n = next_splits(tokens, row, column, last, splits)) {
        if (!pool_splits(pooler, splits, n, partial.sum, partial.count, partial.keep_counts(0))) return;
        for (int64_t s = 0; s < n; ++s) rows.add(splits[s].row - first, splits[s].begin == 0, partial, s);
      }
      finish(first, last - first, rows);
    }
  });
}

// Distributes splits over the threads. One thread then adds them up, which is 1 / 256 of the work, and calls finish.
template <class Pooler, class Finish>
inline void pool_split_rows(const Pooler& pooler, bool drop, ParallelFor run, const Finish& finish) {
  const Tokens& tokens = pooler.tokens;
  int64_t num_splits = 0;
  for (int64_t row = 0; row < tokens.rows; ++row)
    num_splits += std::max<int64_t>(1, (tokens.row_length(row) + split_columns - 1) / split_columns);
  const Array<Split> splits(num_splits);
  int64_t row = 0, column = 0;
  for (int64_t s = 0; row < tokens.rows;) s += next_splits(tokens, row, column, tokens.rows, splits + s);

  Sums partial(num_splits, pooler.stride, drop);
  bool valid = true;
  parallel_for(run, num_splits, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s += max_splits)
      if (!pool_splits(pooler, splits + s, std::min(max_splits, end - s), partial.sum + s * pooler.stride,
                       partial.count + s, partial.keep_counts(s)))
        __atomic_store_n(&valid, false, __ATOMIC_RELAXED);
  });
  Sums rows(block_rows, pooler.stride, drop);
  for (int64_t s = 0, first = 0; valid && s < num_splits; ++s) {
    rows.add(splits[s].row - first, splits[s].begin == 0, partial, s);
    const bool row_done = s + 1 == num_splits || splits[s + 1].row != splits[s].row;
    const int64_t num_rows = splits[s].row - first + 1;
    if (row_done && (num_rows == block_rows || s + 1 == num_splits)) {
      finish(first, num_rows, rows);
      first += num_rows;
    }
  }
}

// Pools every row and calls finish(first_row, num_rows, const Sums&) for each block of at most block_rows rows.
template <class Pooler, class Finish>
inline void pool_rows(const Pooler& pooler, bool drop, int num_threads, ParallelFor run, const Finish& finish) {
  if (has_dominant_row(pooler.tokens, pooler.elements_per_token, num_threads))
    pool_split_rows(pooler, drop, run, finish);
  else pool_row_blocks(pooler, drop, run, finish);
}

}  // namespace
}  // namespace dendritic_bert
