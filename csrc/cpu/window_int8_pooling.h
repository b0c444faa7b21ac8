// The gate of each token and the gated sums of a row, in integers. A gate is at most 2^28 and what it weighs at most
// 2^15, so that int64 holds the sums of 2^20 tokens.
#pragma once

#include <algorithm>
#include <cstdint>

#include "window_int8_arguments.h"
#include "window_int8_simd.h"
#include "window_strip.h"

namespace dendritic_bert {
namespace {

// Sixteen channels from o on of an array of int16 in blocks (window_int8_simd.h).
struct Int8Columns {
  const int16_t* first;
  int64_t width;
  Int8Columns(const int16_t* u, int64_t capacity, int64_t channels, int64_t o)
      : first(u + o / int8_block * int8_block * capacity + o % int8_block),
        width(std::min<int64_t>(int8_block, channels - o / int8_block * int8_block)) {}
  const int16_t* operator[](int64_t column) const { return first + column * width; }
};

constexpr int gate_group = 8;  // tokens whose dot products are taken together

// dot[j] = <gate_weight, u of column + j>, for gate_group columns. Behind the last one there are as many to be read.
inline void multiply_int8_gate(const Int8Windows& windows, const int16_t* u, int64_t capacity, int64_t column,
                               int32_t* dot) {
  const int64_t channels = windows.shape.channels;
#if defined(__AVX2__)
  __m256i total[gate_group];
#pragma GCC unroll 8
  for (int j = 0; j < gate_group; ++j) total[j] = _mm256_setzero_si256();
  for (int64_t o = 0; o < channels; o += panel) {
    const Int8Columns of_panel(u, capacity, channels, o);
    const __m256i w = load_int16(windows.gate_weight + o);
#pragma GCC unroll 8
    for (int j = 0; j < gate_group; ++j)
      total[j] = _mm256_add_epi32(total[j], _mm256_madd_epi16(w, load_int16(of_panel[column + j])));
  }
  const auto add = [](__m256i a, __m256i b) { return _mm256_hadd_epi32(a, b); };
  const __m256i low = add(add(total[0], total[1]), add(total[2], total[3]));
  const __m256i high = add(add(total[4], total[5]), add(total[6], total[7]));
  _mm_storeu_si128((__m128i*)dot, _mm_add_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
  _mm_storeu_si128((__m128i*)(dot + 4), _mm_add_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
#else
  std::fill_n(dot, gate_group, 0);
  for (int64_t o = 0; o < channels; o += panel) {
    const Int8Columns of_panel(u, capacity, channels, o);
    for (int j = 0; j < gate_group; ++j)
      for (int i = 0; i < panel; ++i)
        dot[j] = int32_t(uint32_t(dot[j]) + uint32_t(int32_t(windows.gate_weight[o + i]) * of_panel[column + j][i]));
  }
#endif
}

// gates[c] = g of the token at column c: 1 without a gate, 0 where there is no token.
__attribute__((noinline)) inline void weigh_int8_tokens(const Int8Windows& windows, const Strip& strip, Columns columns,
                                                        const int16_t* u, int64_t capacity, int32_t* gates) {
  if (!windows.gate) {
    for (int64_t c = columns.begin; c < columns.end; ++c) gates[c] = strip.token[c] < 0 ? 0 : 1;
    return;
  }
  const int32_t limit = gate_limit << windows.gate_bits;
  const int shift = windows.gate_bits - gate_step_bits;
  const int32_t offset = limit + (1 << shift >> 1);
  for (int64_t c = columns.begin; c < columns.end; c += gate_group) {
    const int count = int(std::min<int64_t>(gate_group, columns.end - c));
    int32_t dot[gate_group];
    multiply_int8_gate(windows, u, capacity, c, dot);
    for (int j = 0; j < count; ++j) {
      const int64_t token = strip.token[c + j];
      const int32_t logit = token < 0 ? 0 : std::max(-limit, std::min(limit, dot[j] + windows.gate[token]));
      gates[c + j] = token < 0 ? 0 : windows.gate_table[(logit + offset) >> shift];
    }
  }
}

// Adds g times the values of each token in [columns.begin, columns.end) to sums [D].
__attribute__((noinline)) inline void pool_int8_values(const Int8Windows& windows, const Strip& strip, Columns columns,
                                                       const int32_t* gates, int64_t* sums) {
  const int64_t num_values = windows.shape.num_values;
  int64_t d = 0;
#if defined(__AVX2__)
  for (; d + 4 <= num_values; d += 4) {
    __m256i total = _mm256_loadu_si256((const __m256i*)(sums + d));
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      const int16_t* value = windows.values + std::max<int64_t>(0, strip.token[c]) * num_values + d;
      const __m256i four = _mm256_cvtepi16_epi64(_mm_loadl_epi64((const __m128i*)value));
      total = _mm256_add_epi64(total, _mm256_mul_epi32(_mm256_set1_epi64x(gates[c]), four));  // 0 where g is
    }
    _mm256_storeu_si256((__m256i*)(sums + d), total);
  }
#endif
  for (; d < num_values; ++d) {
    int64_t total = sums[d];
    for (int64_t c = columns.begin; c < columns.end; ++c)
      total += int64_t(gates[c]) * windows.values[std::max<int64_t>(0, strip.token[c]) * num_values + d];
    sums[d] = total;
  }
}

// Adds g times sixteen channels of u to sums [16].
__attribute__((noinline)) inline void pool_int8_panel(Columns columns, const int32_t* gates, Int8Columns u,
                                                      int64_t* sums) {
#if defined(__AVX512BW__)
  __m512i low = _mm512_loadu_si512(sums), high = _mm512_loadu_si512(sums + 8);
  for (int64_t c = columns.begin; c < columns.end; ++c) {
    const __m512i g = _mm512_set1_epi64(gates[c]);
    const __m128i* of = (const __m128i*)u[c];
    low = _mm512_add_epi64(low, _mm512_mul_epi32(g, _mm512_cvtepi16_epi64(_mm_loadu_si128(of))));
    high = _mm512_add_epi64(high, _mm512_mul_epi32(g, _mm512_cvtepi16_epi64(_mm_loadu_si128(of + 1))));
  }
  _mm512_storeu_si512(sums, low);
  _mm512_storeu_si512(sums + 8, high);
#elif defined(__AVX2__)
  for (int q = 0; q < panel; q += 4) {
    __m256i total = _mm256_loadu_si256((const __m256i*)(sums + q));
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      const __m256i four = _mm256_cvtepi16_epi64(_mm_loadl_epi64((const __m128i*)(u[c] + q)));
      total = _mm256_add_epi64(total, _mm256_mul_epi32(_mm256_set1_epi64x(gates[c]), four));
    }
    _mm256_storeu_si256((__m256i*)(sums + q), total);
  }
#else
  for (int64_t c = columns.begin; c < columns.end; ++c)
    for (int i = 0; i < panel; ++i) sums[i] += int64_t(gates[c]) * u[c][i];
#endif
}

}  // namespace
}  // namespace dendritic_bert
