// The part of CUDA C++ that csrc/cuda uses, for a host compiler, in place of the headers of the toolkit; executor.h
// runs the kernels. It does not imitate how the hardware rounds (rsqrtf and expf are exact to the last bit or two), nor
// its memory model beyond barriers, nor inline PTX.
#pragma once

#include "executor.h"
#include "intrinsics.h"
#include "matrices.h"
#include "narrow_types.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// device.cuh defines these for nvcc.
#define DYNAMIC_SHARED(name) unsigned char* name = ::cuda_on_cpu::dynamic_shared
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), ::cuda_on_cpu::launch(#kernel, kernel, grid, block, shared_bytes, __VA_ARGS__))

// The calls of the CUDA runtime that a launcher makes.
using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return cuda_on_cpu::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), bytes) ? cudaSuccess
                                                                                         : cudaErrorInvalidValue;
}
inline cudaError_t cudaGetLastError() {
  return cuda_on_cpu::refused.empty() ? cudaSuccess : cudaErrorInvalidConfiguration;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? cuda_on_cpu::refused.c_str() : "invalid argument";
}
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : int(cuda_on_cpu::settings.max_shared_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
