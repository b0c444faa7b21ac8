// CUDA's short vectors. They may alias any type, as a 16-byte load of eight halves requires. An access at an address
// that is no multiple of the vector's alignment ends the kernel, as on the device, in every build.
#pragma once

#include "executor.h"

namespace cuda_on_cpu {

inline void expect_aligned(const void* address, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(address) % alignment) fail_misaligned(alignment);
}

}  // namespace cuda_on_cpu

// These are inlined, so that a report names the line of the kernel.
#define ALIGNED_COPIES(type, alignment, copies)                                                   \
  type() = default;                                                                               \
  __attribute__((always_inline)) type(const type& other) { *this = other; }                       \
  __attribute__((always_inline)) type& operator=(const type& other) {                             \
    cuda_on_cpu::expect_aligned(this, alignment), cuda_on_cpu::expect_aligned(&other, alignment); \
    copies;                                                                                       \
    return *this;                                                                                 \
  }
#define VECTOR_OF_2(type, element, alignment)                   \
  struct __attribute__((may_alias, aligned(alignment))) type {  \
    element x, y;                                               \
    type(element x, element y) : x(x), y(y) {}                  \
    ALIGNED_COPIES(type, alignment, (x = other.x, y = other.y)) \
  };                                                            \
  inline type make_##type(element x, element y) { return {x, y}; }
#define VECTOR_OF_4(type, element, alignment)                                             \
  struct __attribute__((may_alias, aligned(alignment))) type {                            \
    element x, y, z, w;                                                                   \
    type(element x, element y, element z, element w) : x(x), y(y), z(z), w(w) {}          \
    ALIGNED_COPIES(type, alignment, (x = other.x, y = other.y, z = other.z, w = other.w)) \
  };                                                                                      \
  inline type make_##type(element x, element y, element z, element w) { return {x, y, z, w}; }

VECTOR_OF_2(float2, float, 8)
VECTOR_OF_2(int2, int, 8)
VECTOR_OF_2(uint2, unsigned, 8)
VECTOR_OF_2(double2, double, 16)
VECTOR_OF_2(longlong2, long long, 16)
VECTOR_OF_2(ulonglong2, unsigned long long, 16)
VECTOR_OF_4(float4, float, 16)
VECTOR_OF_4(int4, int, 16)
VECTOR_OF_4(uint4, unsigned, 16)
VECTOR_OF_4(uchar4, unsigned char, 4)
VECTOR_OF_4(char4, signed char, 4)

#undef ALIGNED_COPIES
#undef VECTOR_OF_2
#undef VECTOR_OF_4
