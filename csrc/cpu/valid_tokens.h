// Which tokens are valid, sixty-four at a time, as the bits of a word. Read one by one, the mask took two thirds of the
// time that folded tables take for everything else.
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "arguments.h"

namespace dendritic_bert {
namespace {

constexpr int64_t word_tokens = 64;

inline uint64_t low_bits(int64_t count) { return count < 64 ? (uint64_t(1) << count) - 1 : ~uint64_t(0); }

// Bit i is set where entry i of at most sixty-four is not zero, for masks of integers of 1, 4 and 8 bytes.
#if defined(__AVX512F__)

inline __m512i load_some(const uint8_t* mask, uint64_t lanes) { return _mm512_maskz_loadu_epi8(lanes, mask); }
inline __m512i load_some(const uint32_t* mask, uint64_t lanes) {
  return _mm512_maskz_loadu_epi32(__mmask16(lanes), mask);
}
inline __m512i load_some(const uint64_t* mask, uint64_t lanes) {
  return _mm512_maskz_loadu_epi64(__mmask8(lanes), mask);
}
template <class Mask>
inline uint64_t nonzero_lanes(__m512i x) {
  if constexpr (sizeof(Mask) == 1) return _mm512_test_epi8_mask(x, x);
  else if constexpr (sizeof(Mask) == 4) return _mm512_test_epi32_mask(x, x);
  else return _mm512_test_epi64_mask(x, x);
}

template <class Mask>
inline uint64_t nonzero_bits(const Mask* mask, int64_t size) {
  constexpr int64_t vector = 64 / sizeof(Mask);
  uint64_t bits = 0;
  int64_t i = 0;
  for (; i + vector <= size; i += vector) bits |= nonzero_lanes<Mask>(_mm512_loadu_si512(mask + i)) << i;
  if (i < size) bits |= nonzero_lanes<Mask>(load_some(mask + i, low_bits(size - i))) << i;
  return bits;
}

#else

#if defined(__AVX2__)
template <class Mask>
inline uint64_t zero_lanes(__m256i x) {
  const __m256i zero = _mm256_setzero_si256();
  if constexpr (sizeof(Mask) == 1) return uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, zero)));
  else if constexpr (sizeof(Mask) == 4)
    return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x, zero))));
  else return uint32_t(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(x, zero))));
}
#endif

template <class Mask>
inline uint64_t nonzero_bits(const Mask* mask, int64_t size) {
  uint64_t bits = 0;
  int64_t i = 0;
#if defined(__AVX2__)
  constexpr int64_t vector = 32 / sizeof(Mask);
  for (; i + vector <= size; i += vector)
    bits |= (zero_lanes<Mask>(_mm256_loadu_si256((const __m256i*)(mask + i))) ^ low_bits(vector)) << i;
#endif
  for (; i < size; ++i) bits |= uint64_t(mask[i] != 0) << i;
  return bits;
}

#endif

inline bool is_valid(const Tokens& tokens, int64_t token) {
  switch (tokens.mask_bytes) {
    case 1: return static_cast<const uint8_t*>(tokens.mask)[token];
    case 4: return static_cast<const uint32_t*>(tokens.mask)[token];
    case 8: return static_cast<const uint64_t*>(tokens.mask)[token];
    default: return true;
  }
}

// Bit i is set where token + i is valid, for `size` tokens, sixty-four at most.
inline uint64_t valid_bits(const Tokens& tokens, int64_t token, int64_t size) {
  switch (tokens.mask_bytes) {
    case 1: return nonzero_bits(static_cast<const uint8_t*>(tokens.mask) + token, size);
    case 4: return nonzero_bits(static_cast<const uint32_t*>(tokens.mask) + token, size);
    case 8: return nonzero_bits(static_cast<const uint64_t*>(tokens.mask) + token, size);
    default: return low_bits(size);
  }
}

}  // namespace
}  // namespace dendritic_bert
