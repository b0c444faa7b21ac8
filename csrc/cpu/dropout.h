// Dropout masks by Philox, whose definition is in common/philox.h, in vector code.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "../common/philox.h"
#include "simd.h"

namespace dendritic_bert {
namespace {

// Each 64-bit lane holds one word of a block of four random words in its lower half. The upper half holds whatever the
// rounds leave there, since a product reads the lower halves alone: a round is two products, two shifts and two
// exclusive ors of three operands, and moves nothing into place.
typedef uint64_t Words __attribute__((vector_size(sizeof(Vec))));
inline Words broadcast_word(uint64_t x) { return Words{} + x; }

#if defined(__AVX512F__)

inline Words multiply(Words x, uint32_t factor) {
  return Words(_mm512_mul_epu32(__m512i(x), _mm512_set1_epi64(factor)));
}
// The blocks of the even lanes, (low 0, high 0, low 2, high 2, ...), and of the odd ones, (low 1, high 1, low 3, ...).
inline Words even_blocks(Words low, Words high) { return Words(_mm512_unpacklo_epi64(__m512i(low), __m512i(high))); }
inline Words odd_blocks(Words low, Words high) { return Words(_mm512_unpackhi_epi64(__m512i(low), __m512i(high))); }
inline Vec ones_where_at_least(Words x, uint32_t threshold) {
  return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(__m512i(x), _mm512_set1_epi32(int32_t(threshold))), broadcast(1));
}
constexpr Words block_of_lane = {0, 4, 1, 5, 2, 6, 3, 7};  // so that a vector of results is in the order of channels

#elif defined(__AVX2__)

inline Words multiply(Words x, uint32_t factor) {
  return Words(_mm256_mul_epu32(__m256i(x), _mm256_set1_epi64x(factor)));
}
inline Words even_blocks(Words low, Words high) { return Words(_mm256_unpacklo_epi64(__m256i(low), __m256i(high))); }
inline Words odd_blocks(Words low, Words high) { return Words(_mm256_unpackhi_epi64(__m256i(low), __m256i(high))); }
inline Vec ones_where_at_least(Words x, uint32_t threshold) {
  const __m256i larger = _mm256_max_epu32(__m256i(x), _mm256_set1_epi32(int32_t(threshold)));
  return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(larger, __m256i(x))), broadcast(1));
}
constexpr Words block_of_lane = {0, 2, 1, 3};

#else

#if defined(__SSE2__)
inline Words multiply(Words x, uint32_t factor) { return Words(_mm_mul_epu32(__m128i(x), _mm_set1_epi64x(factor))); }
#else
inline Words multiply(Words x, uint32_t factor) {
  return Words{uint64_t(uint32_t(x[0])) * factor, uint64_t(uint32_t(x[1])) * factor};
}
#endif
inline Words even_blocks(Words low, Words high) { return Words{low[0], high[0]}; }
inline Words odd_blocks(Words low, Words high) { return Words{low[1], high[1]}; }
inline Vec ones_where_at_least(Words x, uint32_t threshold) {
  typedef uint32_t Halves __attribute__((vector_size(sizeof(Vec))));
  const auto kept = Halves(x) >= Halves{threshold, threshold, threshold, threshold};
  return Vec(Halves(kept) & Halves(broadcast(1)));
}
constexpr Words block_of_lane = {0, 1};

#endif

// keep[i] is 1 if dropout with probability p keeps channel i of a token, and 0 otherwise. `keep` has room for
// hidden_size rounded up to whole vectors; past hidden_size it holds 0 or 1 too.
inline void dropout_keep(uint64_t seed, int64_t row, int64_t column, PhiloxStream stream, double p, int64_t hidden_size,
                         float* keep) {
  const uint32_t threshold = dropout_threshold(p);
  for (int64_t h = 0; h < hidden_size; h += 2 * lanes) {
    Words c0 = broadcast_word(uint64_t(h / 4)) + block_of_lane, c1 = broadcast_word(uint32_t(column)),
          c2 = broadcast_word(uint32_t(row)), c3 = broadcast_word(stream);
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < philox_rounds; ++round, k0 += philox_key_step_0, k1 += philox_key_step_1) {
      const Words product0 = multiply(c0, philox_multiplier_0), product2 = multiply(c2, philox_multiplier_2);
      c0 = (product2 >> 32) ^ c1 ^ broadcast_word(k0);
      c2 = (product0 >> 32) ^ c3 ^ broadcast_word(k1);
      c1 = product2;
      c3 = product0;
    }
    const Words low = (c0 & broadcast_word(0xffffffffu)) | c1 << 32,
                high = (c2 & broadcast_word(0xffffffffu)) | c3 << 32;
    store(keep + h, ones_where_at_least(even_blocks(low, high), threshold));
    if (h + lanes < hidden_size) store(keep + h + lanes, ones_where_at_least(odd_blocks(low, high), threshold));
  }
}

}  // namespace
}  // namespace dendritic_bert
