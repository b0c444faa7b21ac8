// Sixteen channels of a token as int32 sums and as int16, in the registers of each instruction set. All of this is
// exact: the factors of a product are 0 to 255 and -64 to 64, so that two of them, 32,640 at most, fit the int16 in
// which vpmaddubsw adds up two neighbours. prepare_int8.py has the other ranges.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "window_layers.h"

namespace dendritic_bert {
namespace {

// What a layer does to its sums, for sixteen outputs.
struct Int8Output {
  const int32_t* shift;
  const int16_t *scale, *next_input_scale;
};

// Channels lie in blocks of int8_tile_panels * panel, the last of which may be one panel: array [channels, columns] has
// channel o of column c, in a block that begins with channel b, at b * columns + c * width + (o - b), with the width of
// that block.

#if defined(__AVX512BW__)

constexpr int int8_tile_tokens = 12, int8_tile_panels = 2;
using Int8Sums = __m512i;
using Four = __m512i;  // four inputs, in every lane
inline Int8Sums load_sums(const int32_t* p) { return _mm512_loadu_si512(p); }
inline Four broadcast_four(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm512_set1_epi32(four);
}
__attribute__((always_inline)) inline void add_products(Int8Sums& sums, Four inputs, Int8Sums weight) {
#if defined(__AVX512VNNI__)
  // GCC 12 copies and spills the sums around the intrinsic, which takes twice as long.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(inputs), "v"(weight));
#else
  const __m512i pairs = _mm512_maddubs_epi16(inputs, weight);
  sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
}
inline Int8Sums load_weight(const int8_t* p) { return _mm512_loadu_si512(p); }
__attribute__((always_inline)) inline __m256i shift_to_int16(Int8Sums sums, const int32_t* shift) {
  return _mm512_cvtsepi32_epi16(_mm512_srav_epi32(sums, _mm512_loadu_si512(shift)));
}

#elif defined(__AVX2__)

#if defined(__AVXVNNI__)
constexpr int int8_tile_tokens = 6, int8_tile_panels = 1;
#else
constexpr int int8_tile_tokens = 4, int8_tile_panels = 1;
#endif
struct Int8Sums {
  __m256i low, high;
};
using Four = __m256i;
inline Int8Sums load_sums(const int32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
inline Int8Sums load_weight(const int8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
inline Four broadcast_four(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm256_set1_epi32(four);
}
__attribute__((always_inline)) inline __m256i with_products(__m256i sums, Four inputs, __m256i weight) {
#if defined(__AVXVNNI__)
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(inputs), "x"(weight));
  return sums;
#else
  const __m256i pairs = _mm256_maddubs_epi16(inputs, weight);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
__attribute__((always_inline)) inline void add_products(Int8Sums& sums, Four inputs, Int8Sums weight) {
  sums.low = with_products(sums.low, inputs, weight.low);
  sums.high = with_products(sums.high, inputs, weight.high);
}
__attribute__((always_inline)) inline __m256i shift_to_int16(Int8Sums sums, const int32_t* shift) {
  const Int8Sums by = load_sums(shift);
  const __m256i packed = _mm256_packs_epi32(_mm256_srav_epi32(sums.low, by.low), _mm256_srav_epi32(sums.high, by.high));
  return _mm256_permute4x64_epi64(packed, 0xD8);
}

#else

constexpr int int8_tile_tokens = 1, int8_tile_panels = 1;
struct Int8Sums {
  int32_t of[panel];
};
struct Four {
  uint8_t of[4];
};
struct Weight {
  int8_t of[panel][4];
};
template <class T, class From>
inline T load_as(const From* p) {
  T x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
inline Int8Sums load_sums(const int32_t* p) { return load_as<Int8Sums>(p); }
inline Weight load_weight(const int8_t* p) { return load_as<Weight>(p); }
inline Four broadcast_four(const uint8_t* p) { return load_as<Four>(p); }
inline void add_products(Int8Sums& sums, Four inputs, const Weight& weight) {
  for (int o = 0; o < panel; ++o)
    for (int i = 0; i < 4; ++i) sums.of[o] += int32_t(inputs.of[i]) * weight.of[o][i];
}

#endif

constexpr int int8_block = int8_tile_panels * panel;

#if defined(__AVX2__)

inline __m256i load_int16(const int16_t* p) { return _mm256_loadu_si256((const __m256i*)p); }

// The inputs of the next layer's products, min(255, (u * scale + 2^14) >> 15).
inline void store_inputs(__m256i u, const int16_t* scale, uint8_t* inputs) {
  const __m256i scaled = _mm256_mulhrs_epi16(u, load_int16(scale));
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(scaled, scaled), 0x08);
  _mm_storeu_si128((__m128i*)inputs, _mm256_castsi256_si128(bytes));
}

// What a layer does to the sums of a token: adds to its u, and writes its inputs of the next layer.
__attribute__((always_inline)) inline void finish_sums(const Int8Sums (&sums)[1], const Int8Output& output, int16_t* u,
                                                       uint8_t* inputs) {
  const __m256i activated = _mm256_max_epi16(shift_to_int16(sums[0], output.shift), _mm256_setzero_si256());
  const __m256i total = _mm256_adds_epi16(load_int16(u), _mm256_mulhrs_epi16(activated, load_int16(output.scale)));
  _mm256_storeu_si256((__m256i*)u, total);
  store_inputs(total, output.next_input_scale, inputs);
}

#if defined(__AVX512BW__)

// Two panels at once.
inline __m512i load_wide(const int16_t* p) { return _mm512_loadu_si512(p); }
__attribute__((always_inline)) inline void store_wide(__m512i u, const int16_t* input_scale, int16_t* to,
                                                      uint8_t* inputs) {
  _mm512_storeu_si512(to, u);
  _mm256_storeu_si256((__m256i*)inputs, _mm512_cvtusepi16_epi8(_mm512_mulhrs_epi16(u, load_wide(input_scale))));
}

__attribute__((always_inline)) inline void finish_sums(const Int8Sums (&sums)[2], const Int8Output& output, int16_t* u,
                                                       uint8_t* inputs) {
  const __m512i low = _mm512_srav_epi32(sums[0], load_sums(output.shift));
  const __m512i high = _mm512_srav_epi32(sums[1], load_sums(output.shift + panel));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);  // of what packs interleaves by 128 bits
  const __m512i packed = _mm512_permutexvar_epi64(order, _mm512_packs_epi32(low, high));
  const __m512i activated = _mm512_max_epi16(packed, _mm512_setzero_si512());
  store_wide(_mm512_adds_epi16(load_wide(u), _mm512_mulhrs_epi16(activated, load_wide(output.scale))),
             output.next_input_scale, u, inputs);
}

// u of layer 0 of two panels, from its bias and taps.
struct WideTapSum {
  static constexpr int channels = 2 * panel;
  __m512i total;
  explicit WideTapSum(const int16_t* bias) : total(load_wide(bias)) {}
  void add(const int16_t* tap) { total = _mm512_add_epi16(total, load_wide(tap)); }
  void store(const int16_t* input_scale, int16_t* u, uint8_t* inputs) const {
    store_wide(_mm512_max_epi16(total, _mm512_setzero_si512()), input_scale, u, inputs);
  }
};

#endif

// u of layer 0 of one panel, from its bias and taps.
struct TapSum {
  static constexpr int channels = panel;
  __m256i total;
  explicit TapSum(const int16_t* bias) : total(load_int16(bias)) {}
  void add(const int16_t* tap) { total = _mm256_add_epi16(total, load_int16(tap)); }
  void store(const int16_t* input_scale, int16_t* u, uint8_t* inputs) const {
    const __m256i positive = _mm256_max_epi16(total, _mm256_setzero_si256());
    _mm256_storeu_si256((__m256i*)u, positive);
    store_inputs(positive, input_scale, inputs);
  }
};

#else

inline int16_t scaled(int32_t x, int16_t scale) { return int16_t((x * scale + (1 << 14)) >> 15); }

inline void store_inputs(const int16_t* u, const int16_t* scale, uint8_t* inputs) {
  for (int o = 0; o < panel; ++o) inputs[o] = uint8_t(std::min<int16_t>(255, scaled(u[o], scale[o])));
}

inline void finish_sums(const Int8Sums (&sums)[1], const Int8Output& output, int16_t* u, uint8_t* inputs) {
  for (int o = 0; o < panel; ++o) {
    const int32_t activated = std::max(0, std::min(32767, sums[0].of[o] >> output.shift[o]));
    u[o] = int16_t(std::min(32767, u[o] + scaled(activated, output.scale[o])));
  }
  store_inputs(u, output.next_input_scale, inputs);
}

// u of layer 0 of one panel, from its bias and taps.
struct TapSum {
  static constexpr int channels = panel;
  int32_t total[panel];
  explicit TapSum(const int16_t* bias) { std::copy_n(bias, panel, total); }
  void add(const int16_t* tap) {
    for (int o = 0; o < panel; ++o) total[o] += tap[o];
  }
  void store(const int16_t* input_scale, int16_t* u, uint8_t* inputs) const {
    for (int o = 0; o < panel; ++o) u[o] = int16_t(std::max(0, total[o]));
    store_inputs(u, input_scale, inputs);
  }
};

#endif

}  // namespace
}  // namespace dendritic_bert
