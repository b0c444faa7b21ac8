// CUDA's short vectors. They may alias anything, as a 16-byte load of eight halves does.
#pragma once

#define VECTOR_OF_2(type, element, alignment)                                  \
  struct __attribute__((may_alias, aligned(alignment))) type { element x, y; }; \
  inline type make_##type(element x, element y) { return {x, y}; }
#define VECTOR_OF_4(type, element, alignment)                                        \
  struct __attribute__((may_alias, aligned(alignment))) type { element x, y, z, w; }; \
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

#undef VECTOR_OF_2
#undef VECTOR_OF_4
