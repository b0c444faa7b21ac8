// Half precision, bfloat16 and float8 e4m3, which convert to the same bits as those of the toolkit.
#pragma once

#include "intrinsics.h"

struct __half {
  uint16_t bits;
  __half() = default;
  __half(float value) : bits(rounded(value)) {}
  operator float() const {
    const unsigned sign = unsigned(bits & 0x8000) << 16, exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
    if (exponent == 0) return __uint_as_float(sign | __float_as_uint(float(mantissa) * 0x1p-24f));
    return __uint_as_float(sign | (exponent == 0x1f ? 0xffu : exponent + 112) << 23 | mantissa << 13);
  }

 private:
  static uint16_t rounded(float value) {
    const unsigned word = __float_as_uint(value), sign = word >> 16 & 0x8000;
    const float magnitude = __uint_as_float(word & 0x7fffffff);
    if (magnitude != magnitude) return 0x7fff;
    if (magnitude >= 65520.0f) return uint16_t(sign | 0x7c00);
    // Below 2^-14 the spacing of halves is 2^-24. Adding 0.5, near which floats have that spacing, rounds to nearest
    // even.
    if (magnitude < 0x1p-14f) return uint16_t(sign | (__float_as_uint(magnitude + 0.5f) - __float_as_uint(0.5f)));
    const unsigned odd = word >> 13 & 1, rebiased = (word & 0x7fffffff) - (112u << 23);
    return uint16_t(sign | (rebiased + 0xfff + odd) >> 13);
  }
};

struct __half2_raw {
  uint16_t x, y;
};

struct alignas(4) __half2 {
  __half x, y;
  __half2() = default;
  __half2(__half x, __half y) : x(x), y(y) {}
  explicit __half2(__half2_raw raw) { std::memcpy(this, &raw, sizeof raw); }
};

inline float __half2float(__half value) { return value; }
inline __half __float2half(float value) { return __half(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline float2 __half22float2(__half2 value) { return {value.x, value.y}; }
inline __half2 __float22half2_rn(float2 value) { return {__half(value.x), __half(value.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float value) {
    const unsigned word = __float_as_uint(value);
    bits = value != value ? 0x7fff : uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
  }
  operator float() const { return __uint_as_float(unsigned(bits) << 16); }
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 value) { return value; }
inline __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
inline float2 __bfloat1622float2(__nv_bfloat162 value) { return {value.x, value.y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 value) { return {__nv_bfloat16(value.x), __nv_bfloat16(value.y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }

// 4 bits of exponent, 3 of mantissa, no infinity. Only conversion to float is here, because the kernels need no other.
using __nv_fp8_storage_t = unsigned char;
using __nv_fp8x2_storage_t = unsigned short;
enum __nv_fp8_interpretation_t { __NV_E4M3 };

struct __nv_fp8_e4m3 {
  __nv_fp8_storage_t __x;
  __nv_fp8_e4m3() = default;
  operator float() const {
    const unsigned sign = unsigned(__x & 0x80) << 24, exponent = __x >> 3 & 0xf, mantissa = __x & 7;
    if ((__x & 0x7f) == 0x7f) return __uint_as_float(0x7fffffff);
    if (exponent == 0) return __uint_as_float(sign | __float_as_uint(float(mantissa) * 0x1p-9f));
    return __uint_as_float(sign | (exponent + 120) << 23 | mantissa << 20);
  }
};

// Exact, since every e4m3 is a half.
inline __half2_raw __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t pair, __nv_fp8_interpretation_t) {
  __nv_fp8_e4m3 low, high;
  low.__x = __nv_fp8_storage_t(pair & 0xff);
  high.__x = __nv_fp8_storage_t(pair >> 8);
  return {__half(float(low)).bits, __half(float(high)).bits};
}
