// The one file that knows which compiler this is: nvcc for a GPU, or a host compiler that runs every thread of a block
// as a fiber (tests/support/cuda_on_cpu), in which case CUDA_ON_CPU is defined.
#pragma once

#ifdef CUDA_ON_CPU
#include "cuda_on_cpu.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

namespace dendritic_bert {

constexpr unsigned all_lanes = 0xffffffffu;

// 1 / sqrt(x) with a relative error of 2^-22.9. rsqrtf spends three more instructions per step (0.4 per token at H =
// 128) on arguments below 2^-126, which eps rules out.
__device__ __forceinline__ float reciprocal_sqrt(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return rsqrtf(x);
#endif
}

// The same pointer, of whose origin the compiler knows nothing.
template <class T>
__device__ __forceinline__ const T* hide_origin(const T* pointer) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(pointer));
#endif
  return pointer;
}

// The same value, but one that the compiler must work out at this place, with all that follows from it, and not keep in
// registers from before a loop.
__device__ __forceinline__ int work_out_here(int x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(x));
#endif
  return x;
}
template <class T>
__device__ __forceinline__ T* work_out_here(T* x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(x));
#endif
  return x;
}

// Byte i of a word, with its sign. ptxas merges this form into the conversion that follows (I2F.S8 with a byte
// selector); with any other it spends one more instruction per channel on a shift.
__device__ __forceinline__ int8_t signed_byte(uint32_t word, int i) {
#ifdef __CUDA_ARCH__
  int32_t byte;
  asm("bfe.s32 %0, %1, %2, 8;" : "=r"(byte) : "r"(word), "r"(8 * i));
  return int8_t(byte);
#else
  return int8_t(word >> 8 * i);
#endif
}

}  // namespace dendritic_bert
