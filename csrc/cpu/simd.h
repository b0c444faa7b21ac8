// Vec, the widest vector of floats that the instruction set has. Its arithmetic operators are the compiler's; this file
// has what differs between instruction sets: loads with conversion, stores and sums across lanes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dendritic_bert {
namespace {

// GCC drops calls to a function that only prefetches, since it sees no effect in them. The empty asm is one.
inline void prefetch_line(const void* address) {
  __builtin_prefetch(address);
  __asm__ volatile("");
}

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

template <class To, class From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float to_float(float x) { return x; }
inline float to_float(int8_t x) { return x; }
inline float to_float(bfloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
inline float to_float(float16 x) {
  // The exponent is shifted; a float subtraction normalises subnormals and zero.
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  if (rest >= 0x7c00) return bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ff) << 13);
  if (rest >= 0x0400) return bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
  return bit_cast<float>(
      sign | bit_cast<uint32_t>(bit_cast<float>((113u << 23) | (rest << 13)) - bit_cast<float>(113u << 23)));
}

// These round to nearest even, as torch does.
inline void from_float(float x, float& to) { to = x; }
inline void from_float(float x, bfloat16& to) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  to.bits = std::isnan(x) ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void from_float(float x, float16& to) {
  const uint32_t bits = bit_cast<uint32_t>(x), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) {
    to.bits = uint16_t(sign | 0x7e00);
    return;
  }
  if (rest >= 0x477ff000) {  // 65520 and above become infinity
    to.bits = uint16_t(sign | 0x7c00);
    return;
  }
  if (rest < 0x38800000) {  // below 2^-14: adding 0.5 aligns the bits
    to.bits = uint16_t(sign | (bit_cast<uint32_t>(bit_cast<float>(rest) + 0.5f) - 0x3f000000));
    return;
  }
  to.bits = uint16_t(sign | ((rest - (112u << 23) + 0xfff + ((rest >> 13) & 1)) >> 13));
}

#if defined(__AVX512F__)

using Vec = __m512;
inline Vec broadcast(float x) { return _mm512_set1_ps(x); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec load(const bfloat16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline Vec load(const float16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Vec load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
inline void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
// The larger, or the smaller, of a number and each lane; of NaN it is NaN, which is why the vector comes second.
inline Vec at_least(float low, Vec x) { return _mm512_max_ps(broadcast(low), x); }
inline Vec at_most(float high, Vec x) { return _mm512_min_ps(broadcast(high), x); }
// x where a is not 0, and 0 elsewhere.
inline Vec where_nonzero(Vec a, Vec x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, broadcast(0), _CMP_NEQ_UQ), x);
}
inline __m256 add_halves(Vec x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }

#elif defined(__AVX2__)

using Vec = __m256;
inline Vec broadcast(float x) { return _mm256_set1_ps(x); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec load(const bfloat16* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
inline Vec load(const float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline Vec load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
inline void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
inline Vec at_least(float low, Vec x) { return _mm256_max_ps(broadcast(low), x); }
inline Vec at_most(float high, Vec x) { return _mm256_min_ps(broadcast(high), x); }
inline Vec where_nonzero(Vec a, Vec x) { return _mm256_and_ps(_mm256_cmp_ps(a, broadcast(0), _CMP_NEQ_UQ), x); }
inline __m256 add_halves(Vec x) { return x; }  // a vector of 256 bits has no second half

#else

using Vec = float __attribute__((vector_size(16)));
inline Vec broadcast(float x) { return Vec{x, x, x, x}; }
template <class T>
inline Vec load(const T* p) {
  return Vec{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
}
inline Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
inline void store(float* p, Vec x) { std::memcpy(p, &x, sizeof(x)); }
inline Vec at_least(float low, Vec x) {
  for (int i = 0; i < 4; ++i) x[i] = x[i] < low ? low : x[i];
  return x;
}
inline Vec at_most(float high, Vec x) {
  for (int i = 0; i < 4; ++i) x[i] = x[i] > high ? high : x[i];
  return x;
}
inline Vec where_nonzero(Vec a, Vec x) {
  for (int i = 0; i < 4; ++i) x[i] = a[i] != 0 ? x[i] : 0;
  return x;
}

#endif

constexpr int lanes = sizeof(Vec) / sizeof(float);
constexpr int group_size = 8;  // tokens whose sums across lanes are taken together

template <class T>
inline Vec load_partial(const T* p, int n) {
  T padded[lanes] = {};
  for (int i = 0; i < n; ++i) padded[i] = p[i];
  return load(padded);
}

inline void store_as(float* p, Vec x, int n) {
  if (n == lanes) store(p, x);
  else
    for (int i = 0; i < n; ++i) p[i] = x[i];
}
template <class T>
inline void store_as(T* p, Vec x, int n) {
  for (int i = 0; i < n; ++i) from_float(x[i], p[i]);
}

// The sum of x[k] * y[k] over k, lane by lane, in up to four partial sums, which make the chain of additions a quarter
// as long. GCC would not inline it by itself, and a call would pass the vectors through memory.
template <int n>
__attribute__((always_inline)) inline Vec dot(const Vec (&x)[n], const Vec (&y)[n]) {
  Vec part[n < 4 ? n : 4];
  for (int k = 0; k < n; ++k) part[k % 4] = k < 4 ? x[k] * y[k] : part[k % 4] + x[k] * y[k];
  if constexpr (n == 1) return part[0];
  else if constexpr (n == 2) return part[0] + part[1];
  else if constexpr (n == 3) return part[0] + part[1] + part[2];
  else return (part[0] + part[1]) + (part[2] + part[3]);
}

template <int n>
__attribute__((always_inline)) inline Vec add_vectors(const Vec (&x)[n]) {
  Vec total = x[0];
  for (int k = 1; k < n; ++k) total += x[k];
  return total;
}

struct Pair {
  float first, second;
};

#if defined(__AVX2__)

// out[j] is the sum of the lanes of x[j], for group_size vectors. A transposing tree takes 7 horizontal additions for
// all eight sums, where one after the other would take 24.
inline void sum_lanes(const Vec* x, float* out) {
  const __m256 a = _mm256_hadd_ps(add_halves(x[0]), add_halves(x[1])),
               b = _mm256_hadd_ps(add_halves(x[2]), add_halves(x[3]));
  const __m256 c = _mm256_hadd_ps(add_halves(x[4]), add_halves(x[5])),
               d = _mm256_hadd_ps(add_halves(x[6]), add_halves(x[7]));
  const __m256 ab = _mm256_hadd_ps(a, b), cd = _mm256_hadd_ps(c, d);
  const __m128 low = _mm_add_ps(_mm256_castps256_ps128(ab), _mm256_extractf128_ps(ab, 1));
  const __m128 high = _mm_add_ps(_mm256_castps256_ps128(cd), _mm256_extractf128_ps(cd, 1));
  _mm_storeu_ps(out, low);
  _mm_storeu_ps(out + 4, high);
}

inline float sum_lanes(Vec x) {
  const __m256 y = add_halves(x);
  __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

__attribute__((always_inline)) inline Pair sum_lanes(Vec x, Vec y) {
  const __m256 z = _mm256_hadd_ps(add_halves(x), add_halves(y));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(z), _mm256_extractf128_ps(z, 1));
  q = _mm_add_ps(q, _mm_movehdup_ps(q));
  return {q[0], q[2]};
}

// 1 / sqrt(x * scale + eps) of both, with one instruction for each step.
__attribute__((always_inline)) inline Pair reciprocal_sqrt(Pair x, float scale, float eps) {
  const __m128 v = _mm_add_ps(_mm_mul_ps(_mm_setr_ps(x.first, x.second, 0, 0), _mm_set1_ps(scale)), _mm_set1_ps(eps));
  const __m128 r = _mm_div_ps(_mm_set1_ps(1.0f), _mm_sqrt_ps(v));
  return {r[0], r[1]};
}

#else

inline float sum_lanes(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }
inline void sum_lanes(const Vec* x, float* out) {
  for (int j = 0; j < group_size; ++j) out[j] = sum_lanes(x[j]);
}
inline Pair sum_lanes(Vec x, Vec y) { return {sum_lanes(x), sum_lanes(y)}; }
inline Pair reciprocal_sqrt(Pair x, float scale, float eps) {
  return {1.0f / std::sqrt(x.first * scale + eps), 1.0f / std::sqrt(x.second * scale + eps)};
}

#endif

// e^x for |x| <= 88: x = n ln 2 + r, then 2^n times a polynomial of r (Cephes' expf; within 2 units in the last place).
inline Vec exponential(Vec x) {
  typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec))));
  const Vec shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, which the last bits hold
  const Vec shifted = x * broadcast(1.44269504f) + shift, n = shifted - shift;
  const Vec r = (x - n * broadcast(0.693359375f)) - n * broadcast(-2.12194440e-4f);
  Vec p = broadcast(1.9875691500e-4f);
  for (const float coefficient : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f, 1.0f})
    p = p * r + broadcast(coefficient);
  return (p * r + broadcast(1.0f)) * bit_cast<Vec>((bit_cast<Bits>(shifted) << 23) + 0x3f800000u);
}

inline int64_t pad_to_lanes(int64_t n) { return (n + lanes - 1) / lanes * lanes; }

}  // namespace
}  // namespace dendritic_bert
