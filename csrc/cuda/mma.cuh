// Products of small matrices of bfloat16 on tensor cores, by the warp: m16n8k16 as the PTX manual describes it. With
// lane = 4 * group + pair, a lane holds the rows `group` and `group + 8` of A and of the sums, column `group` of B, and
// of what is multiplied the columns 2 * pair, 2 * pair + 1 and the two eight further on.
#pragma once

#include "device.cuh"

namespace dendritic_bert {

// sum += A B for A [16, 16] and B [16, 8]. All lanes take part.
__device__ __forceinline__ void multiply_matrices(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDA_ARCH__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(CUDA_ON_CPU)
  cuda_on_cpu::multiply_matrices(sum, a, b0, b1);
#endif
}

// B [16, 16] in shared memory, [in, out], as the fragments of its two halves: b[0] and b[1] of outputs 0 to 7, b[2] and
// b[3] of outputs 8 to 15. Each lane passes the address of row lane % 16, eight outputs further for lanes from 16 on.
__device__ __forceinline__ void load_matrices(uint32_t (&b)[4], const __nv_bfloat16* row) {
#ifdef __CUDA_ARCH__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
#elif defined(CUDA_ON_CPU)
  cuda_on_cpu::load_matrices(b, row);
#endif
}

// Two neighbours as bfloat16, the first in the lower half.
__device__ __forceinline__ uint32_t as_bfloat16_pair(float2 x) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x.x, x.y);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

}  // namespace dendritic_bert
