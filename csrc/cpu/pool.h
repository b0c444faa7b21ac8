// The hot loop: gather, LayerNorm, accumulate. Eight tokens at a time, in two passes over rows that stay in L1:
//   1. e = word + context into a buffer, and the sum of squares (sums across lanes once for all eight tokens);
//   2. acc += rstd * e, with up to eight accumulator vectors in registers.
// gamma, beta and the division by the count are left to the caller, once a row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "arguments.h"
#include "philox.h"
#include "simd.h"
#include "tokens.h"

namespace dendritic_bert {
namespace {

// Floats aligned to a cache line, uninitialised.
struct Buffer {
  float* data;
  explicit Buffer(int64_t size)
      : data(static_cast<float*>(std::aligned_alloc(64, size_t(std::max<int64_t>(size, 1) * 4 + 63) / 64 * 64))) {}
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator float*() const { return data; }
};

// What training keeps and adds, beside the sum of rstd * e.
struct Training {
  float* rstd;              // [T]
  const Dropout* dropout;
};

template <class Word>
struct Gather {
  const Table& table;
  const Tokens& tokens;
  const Training* training = nullptr;
  const int64_t hidden_size = table.hidden_size;
  const int64_t elements_per_token = hidden_size;
  const int64_t full = hidden_size / lanes * lanes;        // whole vectors end here
  const int tail = int(hidden_size - full);
  const int64_t stride = padded_to_lanes(hidden_size);     // of every buffer row; the padding holds zeros
  const int64_t row_bytes = hidden_size * int64_t(sizeof(Word));
  // 12 KB ahead: about 100 ns at L3 speed, and a quarter of L1.
  const int64_t prefetch_distance = std::clamp<int64_t>(12288 / row_bytes, 2, max_prefetch_distance);
  const Word* words = static_cast<const Word*>(table.word);

  void prefetch(const TokenList& list, int64_t i) const { prefetch_row(list.id[i]); }
  void prefetch_row(int64_t id) const {
    const char* row = reinterpret_cast<const char*>(words + id * hidden_size);
    for (int64_t byte = 0; byte < row_bytes; byte += 64) prefetch_line(row + byte);
  }

  Vec word_vector(const Word* row, int64_t h, Vec scale) const {
    if constexpr (sizeof(Word) == 1) return load(row + h) * scale;
    else return load(row + h);
  }

  // e[j] = word + context for up to eight tokens from list[first] on; lane sums of e, or of e * e where `squares`.
  template <bool squares>
  void embed(const TokenList& list, int64_t first, int count, float* e, float* lane_sums) const {
    Vec partial[group_size];
    for (int j = 0; j < count; ++j, e += stride) {
      const int32_t id = list.id[first + j];
      const Word* word = words + id * hidden_size;
      const float* context = table.context + list.context[first + j] * table.context_stride;
      const Vec scale = broadcast(sizeof(Word) == 1 ? table.word_scale[id] : 1.0f);
      prefetch(list, first + j + prefetch_distance);
      Vec total0 = broadcast(0), total1 = broadcast(0);
      int64_t h = 0;
      for (; h + 2 * lanes <= full; h += 2 * lanes) {
        const Vec x = word_vector(word, h, scale) + load(context + h);
        const Vec y = word_vector(word, h + lanes, scale) + load(context + h + lanes);
        store(e + h, x);
        store(e + h + lanes, y);
        total0 += squares ? x * x : x;
        total1 += squares ? y * y : y;
      }
      if (h < full) {
        const Vec x = word_vector(word, h, scale) + load(context + h);
        store(e + h, x);
        total0 += squares ? x * x : x;
      }
      if (tail) {
        Vec x = load_partial(word + full, tail);
        if constexpr (sizeof(Word) == 1) x *= scale;
        x += load_partial(context + full, tail);
        store(e + full, x);
        total1 += squares ? x * x : x;
      }
      partial[j] = total0 + total1;
    }
    for (int j = count; j < group_size; ++j) partial[j] = broadcast(0);
    sums(partial, lane_sums);
  }

  // e[j] -= mean[j], and the lane sums of squares of the result.
  void centre(int count, const float* mean, float* e, float* lane_sums) const {
    Vec partial[group_size];
    for (int j = 0; j < group_size; ++j) partial[j] = broadcast(0);
    for (int j = 0; j < count; ++j, e += stride) {
      const Vec m = broadcast(mean[j]);
      for (int64_t h = 0; h < full; h += lanes) {
        const Vec x = load(e + h) - m;
        store(e + h, x);
        partial[j] += x * x;
      }
      for (int64_t h = full; h < hidden_size; ++h) e[h] -= mean[j];
      if (tail) partial[j] += load(e + full) * load(e + full);
    }
    sums(partial, lane_sums);
  }

  // Centred e and 1 / sqrt(var + eps) of up to eight tokens.
  void normalise(const TokenList& list, int64_t first, int count, float* e, float* rstd) const {
    float squares[group_size], mean[group_size];
    if (table.centred) {
      embed<true>(list, first, count, e, squares);
    } else {
      embed<false>(list, first, count, e, mean);
      for (float& m : mean) m /= float(hidden_size);
      centre(count, mean, e, squares);
    }
    const float scale = 1.0f / float(hidden_size);
    for (int j = 0; j < group_size; ++j) rstd[j] = 1.0f / std::sqrt(squares[j] * scale + table.eps);
  }

  // The same for rows of few whole vectors, with e and all accumulators in registers: no buffer, no second pass. Two
  // tokens at a time share their sums across lanes and the square root; of several pairs, all but acc += rstd * e
  // overlaps out of order.
  template <int vectors>
  void pool_in_registers(const TokenList& list, int64_t first, int64_t last, float* acc, float* rstd) const {
    const float inverse = 1.0f / float(vectors * lanes), eps = table.eps;
    Vec total[vectors];
    for (Vec& t : total) t = broadcast(0);
    int64_t i = first;
    for (; i + 2 <= last; i += 2) {
      Vec x[vectors], y[vectors];
      gather_row(list, i, x);
      gather_row(list, i + 1, y);
      if (!table.centred) {
        const Pair mean = sums(total_of(x), total_of(y));
        for (Vec& v : x) v -= broadcast(mean.first * inverse);
        for (Vec& v : y) v -= broadcast(mean.second * inverse);
      }
      const Pair r = reciprocal_sqrt(sums(dot(x, x), dot(y, y)), inverse, eps);
      if (rstd) {
        rstd[list.column[i]] = r.first;
        rstd[list.column[i + 1]] = r.second;
      }
      for (int k = 0; k < vectors; ++k) total[k] += broadcast(r.first) * x[k];
      for (int k = 0; k < vectors; ++k) total[k] += broadcast(r.second) * y[k];
    }
    if (i < last) {
      Vec x[vectors];
      gather_row(list, i, x);
      if (!table.centred) {
        const Vec mean = broadcast(sum(total_of(x)) * inverse);
        for (Vec& v : x) v -= mean;
      }
      const float r = 1.0f / std::sqrt(sum(dot(x, x)) * inverse + eps);
      if (rstd) rstd[list.column[i]] = r;
      for (int k = 0; k < vectors; ++k) total[k] += broadcast(r) * x[k];
    }
    for (int k = 0; k < vectors; ++k) store(acc + k * lanes, total[k]);
  }

  // e = word + context of token i of the list, in registers, and a later token's row on its way.
  template <int vectors>
  __attribute__((always_inline)) void gather_row(const TokenList& list, int64_t i, Vec (&e)[vectors]) const {
    const int64_t id = list.id[i], ahead = list.id[i + prefetch_distance];
    const Word* word = words + id * (vectors * lanes);
    const float* context = table.context + list.context[i] * table.context_stride;
    const char* next = reinterpret_cast<const char*>(words + ahead * (vectors * lanes));
    for (size_t byte = 0; byte < vectors * lanes * sizeof(Word); byte += 64) prefetch_line(next + byte);
    const Vec scale = broadcast(sizeof(Word) == 1 ? table.word_scale[id] : 1.0f);
    for (int k = 0; k < vectors; ++k) e[k] = word_vector(word, k * lanes, scale) + load(context + k * lanes);
  }

  // False where this hidden size has no register form.
  bool pool_small(const TokenList& list, int64_t first, int64_t last, float* acc, float* rstd) const {
    if (tail) return false;
    switch (full / lanes) {
      case 1: pool_in_registers<1>(list, first, last, acc, rstd); return true;
      case 2: pool_in_registers<2>(list, first, last, acc, rstd); return true;
      case 3: pool_in_registers<3>(list, first, last, acc, rstd); return true;
      case 4: pool_in_registers<4>(list, first, last, acc, rstd); return true;
#if defined(__AVX512F__)  // 32 registers
      case 6: pool_in_registers<6>(list, first, last, acc, rstd); return true;
      case 8: pool_in_registers<8>(list, first, last, acc, rstd); return true;
#endif
      default: return false;
    }
  }

  template <int vectors>
  void accumulate_tile(const float* e, const float* rstd, int count, float* acc) const {
    Vec total[vectors];
    for (int k = 0; k < vectors; ++k) total[k] = load(acc + k * lanes);
    for (int j = 0; j < count; ++j, e += stride) {
      const Vec r = broadcast(rstd[j]);
      for (int k = 0; k < vectors; ++k) total[k] += r * load(e + k * lanes);
    }
    for (int k = 0; k < vectors; ++k) store(acc + k * lanes, total[k]);
  }

  // acc += sum_j rstd[j] * e[j].
  void accumulate(const float* e, const float* rstd, int count, float* acc) const {
    int64_t h = 0;
    for (; h + 8 * lanes <= stride; h += 8 * lanes) accumulate_tile<8>(e + h, rstd, count, acc + h);
    if (h + 4 * lanes <= stride) { accumulate_tile<4>(e + h, rstd, count, acc + h); h += 4 * lanes; }
    if (h + 2 * lanes <= stride) { accumulate_tile<2>(e + h, rstd, count, acc + h); h += 2 * lanes; }
    if (h < stride) accumulate_tile<1>(e + h, rstd, count, acc + h);
  }

  void keep_for_backward(const Segment& segment, const TokenList& list, int64_t first, int count, float* e,
                         const float* rstd, float* keep, float* keep_count) const {
    const int64_t start = tokens.row_start(segment.row);
    for (int j = 0; j < count; ++j) {
      const int64_t column = list.column[first + j];
      training->rstd[start + column] = rstd[j];
      if (!keep_count) continue;
      dropout_keep(training->dropout->seed, segment.row, column, embed_stream, training->dropout->p_embed, hidden_size,
                   keep);
      for (int64_t h = 0; h < hidden_size; ++h) {
        e[j * stride + h] *= keep[h];
        keep_count[h] += keep[h];
      }
    }
  }

  struct Scratch {
    Buffer e, keep;
    explicit Scratch(const Gather& gather) : e(group_size * gather.stride), keep(gather.stride) {}
  };

  // Tokens [first, last) of the list, all of `segment`, into the zeroed acc: the sum of rstd * e times the dropout mask.
  void pool(Scratch& scratch, const Segment& segment, const TokenList& list, int64_t first, int64_t last, float* acc,
            float* keep_count) const {
    float* row_rstd = training ? training->rstd + tokens.row_start(segment.row) : nullptr;
    if (!keep_count && pool_small(list, first, last, acc, row_rstd)) return;
    float rstd[group_size];
    for (int64_t i = first; i < last; i += group_size) {
      const int count = int(std::min<int64_t>(group_size, last - i));
      normalise(list, i, count, scratch.e, rstd);
      if (training) keep_for_backward(segment, list, i, count, scratch.e, rstd, scratch.keep, keep_count);
      accumulate(scratch.e, rstd, count, acc);
    }
  }
};

}  // namespace
}  // namespace dendritic_bert
