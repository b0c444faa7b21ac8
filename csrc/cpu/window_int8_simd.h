// Sixteen channels of a token as int32 sums and as int16, in the registers of each instruction set. All of this is
// exact: the factors of a product are 0 to 255 and -64 to 64, so that two of them, 32,640 at most, fit the int16 in
// which vpmaddubsw adds up two neighbours, and so do the four that share one in add_products_of_eight.
// prepare_int8.py has these and the other ranges.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "window_int8_arguments.h"
#include "window_layers.h"
#if defined(__aarch64__)
#include "window_int8_neon.h"
#endif

namespace dendritic_bert {
namespace {

// Channels lie in blocks of int8_tile_panels * panel, the last of which may be one panel: array [channels, columns] has
// the channels of column c that a block holds, from channel b on, at b * columns + c * width, with the width of that
// block. In a block of two panels they lie in the order in which packs leaves them: four of the first panel, four of
// the second, and so on. Whatever is multiplied with them lies in the same order (in_block_order), and the products of
// a layer read the weights of every four channels in it. The inputs of AMX are in the order of the weights.
enum class ChannelOrder { of_block, of_weights };

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
__attribute__((always_inline)) inline __m256i shift_to_int16(Int8Sums sums, Int8Sums shift) {
  return _mm512_cvtsepi32_epi16(_mm512_srav_epi32(sums, shift));
}

#elif defined(__AVX2__)

struct Int8Sums {
  __m256i low, high;
};
inline Int8Sums load_sums(const int32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
#if defined(__AVXVNNI__)
constexpr int int8_tile_tokens = 6, int8_tile_panels = 1;
using Four = __m256i;
inline Int8Sums load_weight(const int8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
inline Four broadcast_four(const uint8_t* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm256_set1_epi32(four);
}
__attribute__((always_inline)) inline void add_products(Int8Sums& sums, Four inputs, Int8Sums weight) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums.low) : "x"(inputs), "x"(weight.low));
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums.high) : "x"(inputs), "x"(weight.high));
}
#else
constexpr int int8_tile_tokens = 5, int8_tile_panels = 1;
#define DENDRITIC_BERT_INT8_EIGHTS
// Adds the products of eight inputs of a token, whose first four have the weights at `first` and the others those at
// `second`. Of the four instructions that multiply these by 16 outputs in fours, the two that make int32 of int16 serve
// both: 6 in place of 8, of which a Zen 3 and a Skylake start two in a cycle. GCC 12 would take the tokens of a tile in
// turns, for which there are no registers.
__attribute__((always_inline)) inline void add_products_of_eight(Int8Sums& sums, const uint8_t* inputs,
                                                                 const int8_t* first, const int8_t* second) {
  typedef char Bytes __attribute__((vector_size(32), aligned(1)));
  __m256i a, b, c, d;
  __asm__(
      "vpbroadcastd %[x0], %[a]\n\t"
      "vpbroadcastd %[x1], %[b]\n\t"
      "vpmaddubsw %[low0], %[a], %[c]\n\t"
      "vpmaddubsw %[low1], %[b], %[d]\n\t"
      "vpaddw %[d], %[c], %[c]\n\t"
      "vpmaddwd %[one], %[c], %[c]\n\t"
      "vpaddd %[c], %[low], %[low]\n\t"
      "vpmaddubsw %[high0], %[a], %[a]\n\t"
      "vpmaddubsw %[high1], %[b], %[b]\n\t"
      "vpaddw %[b], %[a], %[a]\n\t"
      "vpmaddwd %[one], %[a], %[a]\n\t"
      "vpaddd %[a], %[high], %[high]"
      : [low] "+x"(sums.low), [high] "+x"(sums.high), [a] "=&x"(a), [b] "=&x"(b), [c] "=&x"(c), [d] "=&x"(d)
      : [one] "x"(_mm256_set1_epi16(1)), [x0] "m"(*(const char(*)[4])inputs), [x1] "m"(*(const char(*)[4])(inputs + 4)),
        [low0] "x"(*(const Bytes*)first), [high0] "m"(*(const Bytes*)(first + 32)), [low1] "m"(*(const Bytes*)second),
        [high1] "m"(*(const Bytes*)(second + 32)));
}
#endif
__attribute__((always_inline)) inline __m256i shift_to_int16(Int8Sums sums, const Int8Sums& shift) {
  const __m256i packed =
      _mm256_packs_epi32(_mm256_srav_epi32(sums.low, shift.low), _mm256_srav_epi32(sums.high, shift.high));
  return _mm256_permute4x64_epi64(packed, 0xD8);
}

#elif !defined(__aarch64__)

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

// Stores the inputs of the next layer's products, min(255, (u * scale + 2^14) >> 15), of one token or two that follow
// each other.
inline void store_inputs(__m256i u, __m256i scale, uint8_t* inputs) {
  const __m256i scaled = _mm256_mulhrs_epi16(u, scale);
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(scaled, scaled), 0x08);
  _mm_storeu_si128((__m128i*)inputs, _mm256_castsi256_si128(bytes));
}
inline void store_inputs(__m256i first, __m256i second, __m256i scale, uint8_t* inputs) {
  const __m256i bytes = _mm256_packus_epi16(_mm256_mulhrs_epi16(first, scale), _mm256_mulhrs_epi16(second, scale));
  _mm256_storeu_si256((__m256i*)inputs, _mm256_permute4x64_epi64(bytes, 0xD8));
}

// What a layer does to the sums of its tokens, in registers: with AVX-512, reading it for each token would be four of
// the token's five loads of 64 bytes, of which a Zen 4 does one in a cycle.
template <int num_panels>
struct OutputVectors;
template <>
struct OutputVectors<1> {
  Int8Sums shift;
  __m256i scale, next_input_scale;
  explicit OutputVectors(const Int8Output& output)
      : shift(load_sums(output.shift)),
        scale(load_int16(output.scale)),
        next_input_scale(load_int16(output.next_input_scale)) {}

  // Adds to u of a token what the layer makes of its sums, and returns it.
  __attribute__((always_inline)) __m256i add_to_stream(const Int8Sums (&sums)[1], int16_t* u) const {
    const __m256i activated = _mm256_max_epi16(shift_to_int16(sums[0], shift), _mm256_setzero_si256());
    const __m256i total = _mm256_adds_epi16(load_int16(u), _mm256_mulhrs_epi16(activated, scale));
    _mm256_storeu_si256((__m256i*)u, total);
    return total;
  }
};

#if defined(__AVX512BW__)

// The same for two panels.
inline __m512i load_wide(const int16_t* p) { return _mm512_loadu_si512(p); }
inline __m512i in_block_order(__m512i u) {
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), u);
}
inline void store_inputs(__m512i u, __m512i scale, uint8_t* inputs) {
  _mm256_storeu_si256((__m256i*)inputs, _mm512_cvtusepi16_epi8(_mm512_mulhrs_epi16(u, scale)));
}
inline void store_inputs(__m512i first, __m512i second, __m512i scale, uint8_t* inputs) {
  const __m512i bytes = _mm512_packus_epi16(_mm512_mulhrs_epi16(first, scale), _mm512_mulhrs_epi16(second, scale));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  _mm512_storeu_si512(inputs, _mm512_permutexvar_epi64(order, bytes));
}
template <>
struct OutputVectors<2> {
  __m512i low_shift, high_shift, scale, next_input_scale;
  explicit OutputVectors(const Int8Output& output)
      : low_shift(load_sums(output.shift)),
        high_shift(load_sums(output.shift + panel)),
        scale(load_wide(output.scale)),
        next_input_scale(load_wide(output.next_input_scale)) {}

  __attribute__((always_inline)) __m512i add_to_stream(const Int8Sums (&sums)[2], int16_t* u) const {
    const __m512i packed =
        _mm512_packs_epi32(_mm512_srav_epi32(sums[0], low_shift), _mm512_srav_epi32(sums[1], high_shift));
    const __m512i activated = _mm512_max_epi16(packed, _mm512_setzero_si512());
    const __m512i total = _mm512_adds_epi16(load_wide(u), _mm512_mulhrs_epi16(activated, scale));
    _mm512_storeu_si512(u, total);
    return total;
  }
};

// The inputs of one token or of two, in the order of the channels.
inline void store_inputs_in_order(__m512i u, __m512i scale, uint8_t* inputs) {
  const __m256i bytes = _mm512_cvtusepi16_epi8(_mm512_mulhrs_epi16(u, scale));
  const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  _mm256_storeu_si256((__m256i*)inputs, _mm256_permutevar8x32_epi32(bytes, order));
}
inline __m512i inputs_in_order(__m512i first, __m512i second, __m512i scale) {
  const __m512i bytes = _mm512_packus_epi16(_mm512_mulhrs_epi16(first, scale), _mm512_mulhrs_epi16(second, scale));
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
}

// u of layer 0 of two panels, and the inputs of layer 1. A token's sum is a copy of one that holds the bias, to which
// its taps are added.
template <ChannelOrder order>
struct WideTapSum {
  static constexpr int channels = 2 * panel;
  __m512i total, input_scale;
  WideTapSum(const int16_t* bias, const int16_t* scale) : total(load_wide(bias)), input_scale(load_wide(scale)) {}
  void add(const int16_t* tap) { total = _mm512_add_epi16(total, load_wide(tap)); }
  void store(int16_t* u, uint8_t* inputs) const {
    const __m512i positive = in_block_order(_mm512_max_epi16(total, _mm512_setzero_si512()));
    _mm512_storeu_si512(u, positive);
    order == ChannelOrder::of_block ? store_inputs(positive, input_scale, inputs)
                                    : store_inputs_in_order(positive, input_scale, inputs);
  }
};

#endif

// The same for one panel.
struct TapSum {
  static constexpr int channels = panel;
  __m256i total, input_scale;
  TapSum(const int16_t* bias, const int16_t* scale) : total(load_int16(bias)), input_scale(load_int16(scale)) {}
  void add(const int16_t* tap) { total = _mm256_add_epi16(total, load_int16(tap)); }
  void store(int16_t* u, uint8_t* inputs) const {
    const __m256i positive = _mm256_max_epi16(total, _mm256_setzero_si256());
    _mm256_storeu_si256((__m256i*)u, positive);
    store_inputs(positive, input_scale, inputs);
  }
};

#elif !defined(__aarch64__)

inline int16_t scaled(int32_t x, int16_t scale) { return int16_t((x * scale + (1 << 14)) >> 15); }

inline void store_inputs(const int16_t* u, const int16_t* scale, uint8_t* inputs) {
  for (int o = 0; o < panel; ++o) inputs[o] = uint8_t(std::min<int16_t>(255, scaled(u[o], scale[o])));
}
inline void store_inputs(const int16_t* first, const int16_t* second, const int16_t* scale, uint8_t* inputs) {
  store_inputs(first, scale, inputs);
  store_inputs(second, scale, inputs + panel);
}

template <int num_panels>
struct OutputVectors : Int8Output {
  explicit OutputVectors(const Int8Output& output) : Int8Output(output) {}

  // Adds to u of a token what the layer makes of its sums, and returns it.
  const int16_t* add_to_stream(const Int8Sums (&sums)[1], int16_t* u) const {
    for (int o = 0; o < panel; ++o) {
      const int32_t activated = std::max(0, std::min(32767, sums[0].of[o] >> shift[o]));
      u[o] = int16_t(std::min(32767, u[o] + scaled(activated, scale[o])));
    }
    return u;
  }
};

// u of layer 0 of one panel, and the inputs of layer 1. A token's sum is a copy of one that holds the bias, to which
// its taps are added.
struct TapSum {
  static constexpr int channels = panel;
  int32_t total[panel];
  const int16_t* input_scale;
  TapSum(const int16_t* bias, const int16_t* scale) : input_scale(scale) { std::copy_n(bias, panel, total); }
  void add(const int16_t* tap) {
    for (int o = 0; o < panel; ++o) total[o] += tap[o];
  }
  void store(int16_t* u, uint8_t* inputs) const {
    for (int o = 0; o < panel; ++o) u[o] = int16_t(std::max(0, total[o]));
    store_inputs(u, input_scale, inputs);
  }
};

#endif

// Copies what belongs to channels into the order in which their blocks hold them.
inline void copy_in_block_order(const int16_t* from, int64_t channels, int16_t* to) {
  int64_t o = 0;
#if defined(__AVX512BW__)
  for (; o + int8_block <= channels; o += int8_block) _mm512_storeu_si512(to + o, in_block_order(load_wide(from + o)));
#endif
  for (; o < channels; ++o) to[o] = from[o];
}

}  // namespace
}  // namespace dendritic_bert
