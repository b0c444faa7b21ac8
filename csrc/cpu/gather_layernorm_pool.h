// The hot loop: gather, LayerNorm, pool. It takes eight tokens at a time, in two passes over rows that stay in L1:
//   1. e = word + context into a buffer, with the sums of squares (across lanes once for all eight tokens);
//   2. acc += rstd * e, with up to eight accumulators in registers.
// The caller applies gamma, beta and the division by the number of valid tokens, once per row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "buffer.h"
#include "dropout.h"
#include "simd.h"
#include "tokens.h"

namespace dendritic_bert {
namespace {

// What training needs beside the sum of rstd * e.
struct Training {
  float* rstd;  // [T], written for the backward
  const Dropout* dropout;
};

template <class Word>
struct FullWidthPooler {
  const Table& table;
  const Tokens& tokens;
  const Training* training = nullptr;
  const int64_t hidden_size = table.hidden_size;
  const int64_t elements_per_token = hidden_size;
  const int64_t full = hidden_size / lanes * lanes;  // channels in whole vectors
  const int tail = int(hidden_size - full);
  const int64_t stride = pad_to_lanes(hidden_size);  // of the rows of buffers, whose padding holds zeros
  const int64_t row_bytes = hidden_size * int64_t(sizeof(Word));
  // Tokens to prefetch ahead: 12 KB, which is about 100 ns at the speed of L3, and a quarter of L1.
  const int64_t prefetch_distance = std::clamp<int64_t>(12288 / row_bytes, 2, max_prefetch_distance);
  const Word* words = static_cast<const Word*>(table.word);

  void prefetch(const TokenList& list, int64_t i) const { prefetch_row(list.id[i]); }
  void prefetch_row(int64_t id) const {
    const char* row = reinterpret_cast<const char*>(words + id * hidden_size);
    for (int64_t byte = 0; byte < row_bytes; byte += 64) prefetch_line(row + byte);
  }

  Vec load_word(const Word* row, int64_t h, Vec scale) const {
    if constexpr (sizeof(Word) == 1) return load(row + h) * scale;
    else return load(row + h);
  }

  // e[j] = word + context for up to eight tokens from list[first] on. lane_sums[j] is the sum of e[j], or of its
  // squares if `squares`.
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
        const Vec x = load_word(word, h, scale) + load(context + h);
        const Vec y = load_word(word, h + lanes, scale) + load(context + h + lanes);
        store(e + h, x);
        store(e + h + lanes, y);
        total0 += squares ? x * x : x;
        total1 += squares ? y * y : y;
      }
      if (h < full) {
        const Vec x = load_word(word, h, scale) + load(context + h);
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
    sum_lanes(partial, lane_sums);
  }

  // e[j] -= mean[j]; lane_sums[j] is the sum of squares of the result.
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
    sum_lanes(partial, lane_sums);
  }

  // For up to eight tokens: e, centred, and rstd = 1 / sqrt(variance + eps).
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

  // Pools rows of a few whole vectors with e and the accumulators in registers, without a buffer and a second pass. Two
  // tokens at a time share the sums across lanes and the square root. The processor overlaps successive pairs: only
  // their additions to the accumulators depend on one another.
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
        const Pair mean = sum_lanes(add_vectors(x), add_vectors(y));
        for (Vec& v : x) v -= broadcast(mean.first * inverse);
        for (Vec& v : y) v -= broadcast(mean.second * inverse);
      }
      const Pair r = reciprocal_sqrt(sum_lanes(dot(x, x), dot(y, y)), inverse, eps);
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
        const Vec mean = broadcast(sum_lanes(add_vectors(x)) * inverse);
        for (Vec& v : x) v -= mean;
      }
      const float r = 1.0f / std::sqrt(sum_lanes(dot(x, x)) * inverse + eps);
      if (rstd) rstd[list.column[i]] = r;
      for (int k = 0; k < vectors; ++k) total[k] += broadcast(r) * x[k];
    }
    for (int k = 0; k < vectors; ++k) store(acc + k * lanes, total[k]);
  }

  // e = word + context of token i of the list, in registers. Prefetches the row of a later token.
  template <int vectors>
  __attribute__((always_inline)) void gather_row(const TokenList& list, int64_t i, Vec (&e)[vectors]) const {
    const int64_t id = list.id[i], ahead = list.id[i + prefetch_distance];
    const Word* word = words + id * (vectors * lanes);
    const float* context = table.context + list.context[i] * table.context_stride;
    const char* next = reinterpret_cast<const char*>(words + ahead * (vectors * lanes));
    for (size_t byte = 0; byte < vectors * lanes * sizeof(Word); byte += 64) prefetch_line(next + byte);
    const Vec scale = broadcast(sizeof(Word) == 1 ? table.word_scale[id] : 1.0f);
    for (int k = 0; k < vectors; ++k) e[k] = load_word(word, k * lanes, scale) + load(context + k * lanes);
  }

  // Returns false if pool_in_registers does not serve this hidden size.
  bool try_in_registers(const TokenList& list, int64_t first, int64_t last, float* acc, float* rstd) const {
    if (tail) return false;
    switch (full / lanes) {
      case 1: pool_in_registers<1>(list, first, last, acc, rstd); return true;
      case 2: pool_in_registers<2>(list, first, last, acc, rstd); return true;
      case 3: pool_in_registers<3>(list, first, last, acc, rstd); return true;
      case 4: pool_in_registers<4>(list, first, last, acc, rstd); return true;
#if defined(__AVX512F__)  // which has 32 registers
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
    if (h + 4 * lanes <= stride) {
      accumulate_tile<4>(e + h, rstd, count, acc + h);
      h += 4 * lanes;
    }
    if (h + 2 * lanes <= stride) {
      accumulate_tile<2>(e + h, rstd, count, acc + h);
      h += 2 * lanes;
    }
    if (h < stride) accumulate_tile<1>(e + h, rstd, count, acc + h);
  }

  // Stores rstd and, under dropout on the embeddings, applies the mask to e.
  void apply_training(const Split& split, const TokenList& list, int64_t first, int count, float* e, const float* rstd,
                      float* keep, float* keep_count) const {
    const int64_t start = tokens.row_start(split.row);
    for (int j = 0; j < count; ++j) {
      const int64_t column = list.column[first + j];
      training->rstd[start + column] = rstd[j];
      if (!keep_count) continue;
      dropout_keep(
          training->dropout->seed, split.row, column, embed_stream, training->dropout->p_embed, hidden_size, keep);
      for (int64_t h = 0; h < hidden_size; ++h) {
        e[j * stride + h] *= keep[h];
        keep_count[h] += keep[h];
      }
    }
  }

  // What a thread needs to pool.
  struct Scratch {
    Buffer e, keep;
    explicit Scratch(const FullWidthPooler& pooler) : e(group_size * pooler.stride), keep(pooler.stride) {}
  };

  // Adds rstd * e, times the dropout mask, of tokens [first, last) of the list to acc, which is zero. They are all the
  // valid tokens of `split`.
  void pool(Scratch& scratch, const Split& split, const TokenList& list, int64_t first, int64_t last, float* acc,
            float* keep_count) const {
    float* row_rstd = training ? training->rstd + tokens.row_start(split.row) : nullptr;
    if (!keep_count && try_in_registers(list, first, last, acc, row_rstd)) return;
    float rstd[group_size];
    for (int64_t i = first; i < last; i += group_size) {
      const int count = int(std::min<int64_t>(group_size, last - i));
      normalise(list, i, count, scratch.e, rstd);
      if (training) apply_training(split, list, i, count, scratch.e, rstd, scratch.keep, keep_count);
      accumulate(scratch.e, rstd, count, acc);
    }
  }
};

}  // namespace
}  // namespace dendritic_bert
