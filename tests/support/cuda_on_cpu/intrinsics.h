// The functions that a kernel calls: barriers, shuffles, votes, atomics, loads and arithmetic.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "executor.h"
#include "vector_types.h"

#define CUDA_ON_CPU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_ON_CPU_PLACE) { cuda_on_cpu::block_barrier({file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_CPU_PLACE) {
  cuda_on_cpu::warp_primitive(cuda_on_cpu::Primitive::syncwarp, mask, 0, 0, {file, line});
}

namespace cuda_on_cpu {

template <class T>
T shuffle(unsigned mask, T value, unsigned source, Place place) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_primitive(Primitive::shuffle, mask, bits, source, place);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline void check_width(int width, Place place) {
  if (width < 1 || width > int(warp_size) || (width & (width - 1)))
    fail("the width of a shuffle is no power of 2", place);
}

}  // namespace cuda_on_cpu

// As the PTX manual defines shfl.sync: a lane whose source lies outside its own group of `width` lanes keeps its value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_CPU_PLACE) {
  cuda_on_cpu::check_width(width, {file, line});
  const unsigned first = cuda_on_cpu::lane() & ~unsigned(width - 1);
  return cuda_on_cpu::shuffle(mask, value, first | (unsigned(source) & unsigned(width - 1)), {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CUDA_ON_CPU_PLACE) {
  cuda_on_cpu::check_width(width, {file, line});
  const unsigned lane = cuda_on_cpu::lane(), source = lane ^ unsigned(lane_mask);
  const unsigned last = (lane & ~unsigned(width - 1)) | unsigned(width - 1);
  return cuda_on_cpu::shuffle(mask, value, source > last ? lane : source, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_PLACE) {
  cuda_on_cpu::check_width(width, {file, line});
  const unsigned lane = cuda_on_cpu::lane(), index = lane & unsigned(width - 1);
  return cuda_on_cpu::shuffle(mask, value, delta > index ? lane : lane - delta, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_PLACE) {
  cuda_on_cpu::check_width(width, {file, line});
  const unsigned lane = cuda_on_cpu::lane(), index = lane & unsigned(width - 1);
  return cuda_on_cpu::shuffle(mask, value, index + delta >= unsigned(width) ? lane : lane + delta, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_CPU_PLACE) {
  return unsigned(cuda_on_cpu::warp_primitive(cuda_on_cpu::Primitive::ballot, mask, predicate != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_CPU_PLACE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_CPU_PLACE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

// A fiber is interrupted only at barriers, so plain memory operations are atomic. Each function returns the old value.
template <class T, class Operation>
T cuda_on_cpu_atomic(T* address, const Operation& operation) {
  cuda_on_cpu::begin_atomic(address);
  const T old = *address;
  *address = operation(old);
  cuda_on_cpu::end_atomic();
  return old;
}
template <class T>
T atomicExch(T* address, T value) {
  return cuda_on_cpu_atomic(address, [&](T) { return value; });
}
template <class T>
T atomicAdd(T* address, T value) {
  return cuda_on_cpu_atomic(address, [&](T old) { return T(old + value); });
}
template <class T>
T atomicMin(T* address, T value) {
  return cuda_on_cpu_atomic(address, [&](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, T value) {
  return cuda_on_cpu_atomic(address, [&](T old) { return value > old ? value : old; });
}
template <class T>
T atomicOr(T* address, T value) {
  return cuda_on_cpu_atomic(address, [&](T old) { return T(old | value); });
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  return cuda_on_cpu_atomic(address, [&](T old) { return old == expected ? value : old; });
}
inline void __threadfence() { cuda_on_cpu::fence(); }

// On the device, a load of 4, 8 or 16 bytes from an address that is not a multiple of its size ends the kernel.
template <class T>
T __ldg(const T* address, CUDA_ON_CPU_PLACE) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T)) cuda_on_cpu::fail("a misaligned load", {file, line});
  return *address;
}
template <class T>
T __ldcg(const T* address, CUDA_ON_CPU_PLACE) {
  return __ldg(address, file, line);
}
template <class T>
T __ldcs(const T* address, CUDA_ON_CPU_PLACE) {
  return __ldg(address, file, line);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }

template <class To, class From>
To cuda_on_cpu_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}
inline float __uint_as_float(unsigned x) { return cuda_on_cpu_bits<float>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu_bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_on_cpu_bits<int>(x); }

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / std::sqrt(double(x))); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }

#define CUDA_ON_CPU_MIN_MAX(type)                           \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
CUDA_ON_CPU_MIN_MAX(int)
CUDA_ON_CPU_MIN_MAX(unsigned)
CUDA_ON_CPU_MIN_MAX(long)
CUDA_ON_CPU_MIN_MAX(long long)
CUDA_ON_CPU_MIN_MAX(unsigned long)
CUDA_ON_CPU_MIN_MAX(float)
#undef CUDA_ON_CPU_MIN_MAX
