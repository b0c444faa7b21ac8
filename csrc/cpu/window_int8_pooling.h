// The gate of each token and the gated sums of a row, in integers. A gate is at most 2^28 and what it weighs at most
// 2^15, so that int64 holds the sums of 2^20 tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

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

constexpr int gate_group = 8;  // tokens whose gates are taken together

#if defined(__AVX2__)

// <gate_weight, u of column + j> for gate_group columns. Behind the last one there are as many to be read.
inline __m256i multiply_int8_gate(const Int8Windows& windows, const int16_t* u, int64_t capacity, int64_t column) {
  const int64_t channels = windows.shape.channels;
  __m256i total[gate_group];
#pragma GCC unroll 8
  for (int j = 0; j < gate_group; ++j) total[j] = _mm256_setzero_si256();
  for (int64_t o = 0; o < channels; o += panel) {
    const Int8Columns of_panel(u, capacity, channels, o);
    const int16_t* first = of_panel[column];
    const __m256i w = load_int16(windows.gate_weight + o);
#pragma GCC unroll 8
    for (int j = 0; j < gate_group; ++j)
      total[j] = _mm256_add_epi32(total[j], _mm256_madd_epi16(w, load_int16(first + j * of_panel.width)));
  }
  const auto add = [](__m256i a, __m256i b) { return _mm256_hadd_epi32(a, b); };
  const __m256i low = add(add(total[0], total[1]), add(total[2], total[3]));
  const __m256i high = add(add(total[4], total[5]), add(total[6], total[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

// The entries of the gate table that belong to gate_group logits.
inline void find_gates(const Int8Windows& windows, const int16_t* u, int64_t capacity, int64_t column,
                       const int32_t* of_tokens, int32_t* entries) {
  const int shift = windows.gate_bits - gate_step_bits;
  const __m256i limit = _mm256_set1_epi32(gate_limit << windows.gate_bits);
  const __m256i offset = _mm256_add_epi32(limit, _mm256_set1_epi32(1 << shift >> 1));
  const __m256i sum =
      _mm256_add_epi32(multiply_int8_gate(windows, u, capacity, column), _mm256_loadu_si256((const __m256i*)of_tokens));
  const __m256i logit = _mm256_max_epi32(_mm256_sub_epi32(_mm256_setzero_si256(), limit), _mm256_min_epi32(limit, sum));
  _mm256_storeu_si256((__m256i*)entries, _mm256_sra_epi32(_mm256_add_epi32(logit, offset), _mm_cvtsi32_si128(shift)));
}

#else

inline void find_gates(const Int8Windows& windows, const int16_t* u, int64_t capacity, int64_t column,
                       const int32_t* of_tokens, int32_t* entries) {
  const int64_t channels = windows.shape.channels;
  const int shift = windows.gate_bits - gate_step_bits;
  const int32_t limit = gate_limit << windows.gate_bits, offset = limit + (1 << shift >> 1);
  uint32_t sum[gate_group];
  std::copy_n(of_tokens, gate_group, sum);
  for (int64_t o = 0; o < channels; o += panel) {
    const Int8Columns of_panel(u, capacity, channels, o);
    for (int j = 0; j < gate_group; ++j)
      for (int i = 0; i < panel; ++i) sum[j] += uint32_t(int32_t(windows.gate_weight[o + i]) * of_panel[column + j][i]);
  }
  for (int j = 0; j < gate_group; ++j)
    entries[j] = (std::max(-limit, std::min(limit, int32_t(sum[j]))) + offset) >> shift;
}

#endif

// gates[c] = g of the token at column c: 1 without a gate, 0 where there is no token.
__attribute__((noinline)) inline void weigh_int8_tokens(const Int8Windows& windows, const Strip& strip, Columns columns,
                                                        const int16_t* u, int64_t capacity, int32_t* gates) {
  const int64_t* token = strip.token;
  if (!windows.gate) {
    for (int64_t c = columns.begin; c < columns.end; ++c) gates[c] = token[c] < 0 ? 0 : 1;
    return;
  }
  const int32_t *gate = windows.gate, *table = windows.gate_table;
  const auto weigh = [&](int64_t c, int64_t count) __attribute__((always_inline)) {
    int32_t of_tokens[gate_group] = {}, entries[gate_group];
#pragma GCC unroll 8
    for (int64_t j = 0; j < count; ++j) of_tokens[j] = gate[std::max<int64_t>(0, token[c + j])];
    find_gates(windows, u, capacity, c, of_tokens, entries);
#pragma GCC unroll 8
    for (int64_t j = 0; j < count; ++j) gates[c + j] = token[c + j] < 0 ? 0 : table[entries[j]];
  };
  int64_t c = columns.begin;
  for (; c + gate_group <= columns.end; c += gate_group) weigh(c, gate_group);
  if (c < columns.end) weigh(c, columns.end - c);
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
      total = _mm256_add_epi64(total, _mm256_mul_epi32(_mm256_set1_epi32(gates[c]), four));  // 0 where g is
    }
    _mm256_storeu_si256((__m256i*)(sums + d), total);
  }
  for (; d + 2 <= num_values; d += 2) {  // the outputs of a folded head are often two
    __m128i total = _mm_loadu_si128((const __m128i*)(sums + d));
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      int32_t two;
      std::memcpy(&two, windows.values + std::max<int64_t>(0, strip.token[c]) * num_values + d, sizeof(two));
      const __m128i product = _mm_mul_epi32(_mm_set1_epi32(gates[c]), _mm_cvtepi16_epi64(_mm_cvtsi32_si128(two)));
      total = _mm_add_epi64(total, product);
    }
    _mm_storeu_si128((__m128i*)(sums + d), total);
  }
#endif
  for (; d < num_values; ++d) {
    int64_t total = sums[d];
    for (int64_t c = columns.begin; c < columns.end; ++c)
      total += int64_t(gates[c]) * windows.values[std::max<int64_t>(0, strip.token[c]) * num_values + d];
    sums[d] = total;
  }
}

#if defined(__AVX2__)

// A gate has 29 bits. In three parts of ten, of which no int32 is filled by the products of 62 tokens with u, one
// instruction multiplies and adds up two tokens.
constexpr int num_parts = 3, bits_of_part = 10;
constexpr int64_t most_tokens = 62;

struct GateParts {
  int16_t of[num_parts][most_tokens + gate_group];

  // Of at most most_tokens gates, and a zero behind them. Behind the gates there are gate_group to be read.
  GateParts(const int32_t* gates, int64_t count) {
    const __m256i mask = _mm256_set1_epi32((1 << bits_of_part) - 1);
    for (int64_t c = 0; c < count; c += gate_group) {
      const __m256i g = _mm256_loadu_si256((const __m256i*)(gates + c));
#pragma GCC unroll 3
      for (int i = 0; i < num_parts; ++i) {
        const __m256i part = _mm256_and_si256(_mm256_srli_epi32(g, i * bits_of_part), mask);
        _mm_storeu_si128(
            (__m128i*)(of[i] + c), _mm_packs_epi32(_mm256_castsi256_si128(part), _mm256_extracti128_si256(part, 1)));
      }
    }
    for (int i = 0; i < num_parts; ++i) of[i][count] = 0;
  }

  // Part i of two neighbours.
  int32_t two(int i, int64_t c) const {
    int32_t both;
    std::memcpy(&both, of[i] + c, sizeof(both));
    return both;
  }
};

// The sums of the products of a channel with each part.
template <int channels>
inline void add_parts(const int32_t (&total)[num_parts][channels], int64_t* sums) {
  for (int o = 0; o < channels; ++o)
    sums[o] += total[0][o] + (int64_t(total[1][o]) << bits_of_part) + (int64_t(total[2][o]) << 2 * bits_of_part);
}

// Adds g times sixteen channels of `count` columns from u on, which lie `width` apart, to sums [16].
inline void pool_int8_panel(const GateParts& gates, int64_t count, const int16_t* u, int64_t width, int64_t* sums) {
  __m256i low[num_parts], high[num_parts];
  for (int i = 0; i < num_parts; ++i) low[i] = high[i] = _mm256_setzero_si256();
  for (int64_t c = 0; c < count; c += 2, u += 2 * width) {
    const __m256i first = load_int16(u), second = load_int16(u + width);
    const __m256i low_pairs = _mm256_unpacklo_epi16(first, second), high_pairs = _mm256_unpackhi_epi16(first, second);
#pragma GCC unroll 3
    for (int i = 0; i < num_parts; ++i) {
      const __m256i g = _mm256_set1_epi32(gates.two(i, c));
      low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(low_pairs, g));
      high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(high_pairs, g));
    }
  }
  int32_t total[num_parts][panel];
  for (int i = 0; i < num_parts; ++i) {
    _mm256_storeu_si256((__m256i*)total[i], _mm256_permute2x128_si256(low[i], high[i], 0x20));
    _mm256_storeu_si256((__m256i*)(total[i] + 8), _mm256_permute2x128_si256(low[i], high[i], 0x31));
  }
  add_parts(total, sums);
}

#if defined(__AVX512BW__)

// The same for a block of two panels, whose order of channels unpacking undoes.
inline void pool_int8_block(const GateParts& gates, int64_t count, const int16_t* u, int64_t* sums) {
  __m512i low[num_parts], high[num_parts];
  for (int i = 0; i < num_parts; ++i) low[i] = high[i] = _mm512_setzero_si512();
  for (int64_t c = 0; c < count; c += 2, u += 2 * int8_block) {
    const __m512i first = load_wide(u), second = load_wide(u + int8_block);
    const __m512i low_pairs = _mm512_unpacklo_epi16(first, second), high_pairs = _mm512_unpackhi_epi16(first, second);
#pragma GCC unroll 3
    for (int i = 0; i < num_parts; ++i) {
      const __m512i g = _mm512_set1_epi32(gates.two(i, c));
      low[i] = _mm512_add_epi32(low[i], _mm512_madd_epi16(low_pairs, g));
      high[i] = _mm512_add_epi32(high[i], _mm512_madd_epi16(high_pairs, g));
    }
  }
  int32_t total[num_parts][int8_block];
  for (int i = 0; i < num_parts; ++i) {
    _mm512_storeu_si512(total[i], low[i]);
    _mm512_storeu_si512(total[i] + panel, high[i]);
  }
  add_parts(total, sums);
}

#endif

// Adds g times u of each token in `columns` to sums [M].
__attribute__((noinline)) inline void pool_int8_windows(Columns columns, const int32_t* gates, const int16_t* u,
                                                        int64_t capacity, int64_t channels, int64_t* sums) {
  for (int64_t c = columns.begin; c < columns.end; c += most_tokens) {
    const int64_t count = std::min(most_tokens, columns.end - c);
    const GateParts parts(gates + c, count);
    int64_t o = 0;
#if defined(__AVX512BW__)
    for (; o + int8_block <= channels; o += int8_block)
      pool_int8_block(parts, count, u + o * capacity + c * int8_block, sums + o);
#endif
    for (; o < channels; o += panel) {
      const Int8Columns of_panel(u, capacity, channels, o);
      pool_int8_panel(parts, count, of_panel[c], of_panel.width, sums + o);
    }
  }
}

#else

// Adds g times u of each token in `columns` to sums [M].
inline void pool_int8_windows(Columns columns, const int32_t* gates, const int16_t* u, int64_t capacity,
                              int64_t channels, int64_t* sums) {
  for (int64_t o = 0; o < channels; o += panel) {
    const Int8Columns of_panel(u, capacity, channels, o);
    for (int64_t c = columns.begin; c < columns.end; ++c)
      for (int i = 0; i < panel; ++i) sums[o + i] += int64_t(gates[c]) * of_panel[c][i];
  }
}

#endif

}  // namespace
}  // namespace dendritic_bert
