// Kernels of a few lines, correct and faulty, with which test_cuda_on_cpu.py tests the executor.
#include <cstring>
#include <string>

#include "cuda_on_cpu.h"

namespace {

constexpr unsigned all_lanes = 0xffffffffu;

// Sums over the warps of a block, by the way of every reduction in csrc/cuda.
__global__ void block_sums(const float* in, float* out, int n) {
  __shared__ float sums[32];
  float sum = 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) sum += in[i];
  for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(all_lanes, sum, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += sums[warp];
    out[blockIdx.x] = sum;
  }
}

// The same without the barrier: warp 0 reads what the others may not have written.
__global__ void block_sums_without_barrier(const float* in, float* out, int) {
  __shared__ float sums[32];
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = in[threadIdx.x];
  if (threadIdx.x == 0) {
    float sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += sums[warp];
    out[0] = sum;
  }
}

// Every thread hands its value to the next in a ring, twice; the barrier that keeps the second write from overtaking
// the first read is missing.
__global__ void ring_without_second_barrier(const float* in, float* out, int) {
  DYNAMIC_SHARED(memory);
  float* slots = reinterpret_cast<float*>(memory);
  float value = in[threadIdx.x];
  for (int turn = 0; turn < 2; ++turn) {
    slots[threadIdx.x] = value;
    __syncthreads();
    value = slots[(threadIdx.x + 1) % blockDim.x];
  }
  out[threadIdx.x] = value;
}

// What each lane gets from the four shuffles, a ballot, and the votes.
__global__ void warp_primitives(const float* in, float* out, int width) {
  const float value = in[threadIdx.x];
  float* mine = out + threadIdx.x * 7;
  mine[0] = __shfl_sync(all_lanes, value, 5, width);
  mine[1] = __shfl_xor_sync(all_lanes, value, 3, width);
  mine[2] = __shfl_up_sync(all_lanes, value, 2, width);
  mine[3] = __shfl_down_sync(all_lanes, value, 2, width);
  mine[4] = float(__popc(__ballot_sync(all_lanes, value > 10) & ((1u << threadIdx.x % 32) - 1)));
  mine[5] = float(__any_sync(all_lanes, value == 7));
  mine[6] = float(__all_sync(all_lanes, value >= 0));
}

// Each half of a warp by itself; the halves need not meet.
__global__ void halves_of_a_warp(const float* in, float* out, int) {
  const bool upper = threadIdx.x % 32 >= 16;
  float sum = in[threadIdx.x];
  for (int turn = 0; turn < (upper ? 3 : 1); ++turn)
    for (int step = 8; step; step >>= 1) sum += __shfl_xor_sync(upper ? 0xffff0000u : 0xffffu, sum, step);
  out[threadIdx.x] = sum;
}

// A [16, 16] times B [16, 16] in bfloat16, with the fragments that the PTX manual describes; if asked to, half of the
// lanes are at another instruction than the others.
__global__ void product_of_matrices(const float* in, float* out, int divergent) {
  __shared__ __align__(16) __nv_bfloat16 matrix[16][24];
  const int lane = int(threadIdx.x), group = lane / 4, pair = lane % 4 * 2;
  for (int i = lane; i < 256; i += 32) matrix[i / 16][i % 16] = __float2bfloat16_rn(in[256 + i]);
  __syncthreads();
  const auto pack = [&](int row, int k) {
    const __nv_bfloat162 values = __floats2bfloat162_rn(in[16 * row + k], in[16 * row + k + 1]);
    uint32_t bits;
    std::memcpy(&bits, &values, sizeof bits);
    return bits;
  };
  const uint32_t a[4] = {pack(group, pair), pack(group + 8, pair), pack(group, pair + 8), pack(group + 8, pair + 8)};
  uint32_t b[4] = {};
  float sum[2][4] = {};
  if (!divergent || lane < 16) cuda_on_cpu::load_matrices(b, &matrix[lane % 16][lane / 16 * 8]);
  for (int half = 0; half < 2; ++half) {
    cuda_on_cpu::multiply_matrices(sum[half], a, b[2 * half], b[2 * half + 1]);
    for (int i = 0; i < 4; ++i) out[16 * (group + i / 2 * 8) + 8 * half + pair + i % 2] = sum[half][i];
  }
}

__global__ void order_of_threads(const float*, float* out, int) {
  __shared__ int turn;
  if (threadIdx.x == 0) turn = 0;
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = float(atomicAdd(&turn, 1));
}

__global__ void order_of_blocks(const float* counter, float* out, int) {
  out[blockIdx.x] = atomicAdd(const_cast<float*>(counter), 1.0f);
}

__global__ void indices(const float*, float* out, int) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = float(block * 1000 + thread);
}

__global__ void unwritten_shared(const float*, float* out, int n) {
  DYNAMIC_SHARED(memory);
  __shared__ float fixed[4];
  float* dynamic = reinterpret_cast<float*>(memory);
  if (threadIdx.x > 0) return;
  out[2 * blockIdx.x] = fixed[1];
  out[2 * blockIdx.x + 1] = dynamic[n - 1];
  fixed[1] = dynamic[n - 1] = 1;  // the next block must not see this
}

__global__ void past_dynamic_shared(const float*, float*, int n) {
  DYNAMIC_SHARED(memory);
  reinterpret_cast<float*>(memory)[n] = 1;
}

__global__ void past_its_memory(const float*, float* out, int n) { out[n] = 1; }

__global__ void read_beside(const float* in, float* out, int n) { out[0] = in[n]; }

__global__ void copy_vector(const float* in, float* out, int n) {
  *reinterpret_cast<float4*>(out + n) = *reinterpret_cast<const float4*>(in);
}

__global__ void read_eight_bytes(const float* in, float* out, int n) {
  out[0] = float(*reinterpret_cast<const int64_t*>(in + n));
}

__global__ void divergent_barrier(const float*, float*, int) {
  if (threadIdx.x < 40) __syncthreads();
}

__global__ void two_barriers(const float*, float*, int) {
  if (threadIdx.x < 40) __syncthreads();
  else __syncthreads();
}

__global__ void barrier_against_shuffle(const float* in, float* out, int) {
  if (threadIdx.x < 7) __syncthreads();
  else out[threadIdx.x] = __shfl_xor_sync(all_lanes, in[threadIdx.x], 1);
}

__global__ void ended_lane(const float* in, float* out, int) {
  if (threadIdx.x == 9) return;
  __syncwarp(~(1u << 9));
  out[threadIdx.x] = __shfl_xor_sync(all_lanes, in[threadIdx.x], 1);
}

__global__ void lane_outside_its_mask(const float* in, float* out, int) {
  out[threadIdx.x] = float(__ballot_sync(0xfffffffeu, in[threadIdx.x] > 0));
}

__global__ void source_outside_the_mask(const float* in, float* out, int) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, in[threadIdx.x], 16);
}

__global__ void short_warp(const float* in, float* out, int) {
  out[threadIdx.x] = __shfl_xor_sync(all_lanes, in[threadIdx.x], 1);
}

__global__ void misaligned_load(const float* in, float* out, int) {
  out[0] = __ldg(reinterpret_cast<const float4*>(in + 1)).x;
}

// Racy in a way that no schedule of whole fibers shows: the sum is right whoever comes first.
__global__ void add_without_atomic(const float* in, float* out, int) {
  if (threadIdx.x < 2) out[0] = 0;
  __syncthreads();
  out[0] += in[threadIdx.x];
}

__global__ void add_over_blocks_without_atomic(const float* in, float* out, int) {
  if (threadIdx.x == 0) const_cast<float*>(in)[0] += 1;
  out[blockIdx.x] = 0;  // no race: every thread writes the same value
}

__global__ void add_with_atomic(const float* in, float* out, int) { atomicAdd(out, in[threadIdx.x]); }

// Every block leaves values, and the last to arrive adds them up. Correct are a fence of every thread before the count
// and one behind it, or both by the thread that counts, between barriers; without one of them it is a race.
enum Fences { by_all, no_release, no_acquire, by_the_first, by_the_first_too_early };
template <Fences fences>
__global__ void last_block_adds_up(const float* counter, float* out, int) {
  __shared__ bool last;
  out[1 + blockIdx.x * blockDim.x + threadIdx.x] = 1;
  if (fences == by_all || fences == no_acquire) __threadfence();
  if (fences != by_the_first_too_early) __syncthreads();
  int* const arrived = reinterpret_cast<int*>(const_cast<float*>(counter));
  if (threadIdx.x == 0) {
    if (fences == by_the_first || fences == by_the_first_too_early) __threadfence();
    last = atomicAdd(arrived, 1) == int(gridDim.x) - 1;
    if (fences == by_the_first || fences == by_the_first_too_early) __threadfence();
  }
  __syncthreads();
  if (!last || threadIdx.x != 7) return;
  if (fences == by_all || fences == no_release) __threadfence();
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x * blockDim.x; ++i) sum += out[1 + i];
  out[0] = sum;
}

__global__ void exchange_within_a_warp(const float* in, float* out, int synchronised) {
  __shared__ float slots[32];
  slots[threadIdx.x] = in[threadIdx.x];
  if (synchronised) __syncwarp();
  else __any_sync(all_lanes, 1);
  out[threadIdx.x] = slots[threadIdx.x ^ 1];
}

}  // namespace

// Returns what failed, "" if nothing did.
extern "C" const char* run_tiny(const char* name, const float* in, long in_size, float* out, long out_size, int n,
                                const unsigned* grid, const unsigned* block, long shared_bytes, int schedule,
                                unsigned long seed) {
  static std::string message;
  message.clear();
  cuda_on_cpu::settings.schedule = cuda_on_cpu::Schedule(schedule);
  cuda_on_cpu::settings.seed = seed;
  const cuda_on_cpu::CallArrays arrays;
  cuda_on_cpu::add_array(in, size_t(in_size) * sizeof(float));
  cuda_on_cpu::add_array(out, size_t(out_size) * sizeof(float));
  const dim3 grid_size(grid[0], grid[1], grid[2]), block_size(block[0], block[1], block[2]);
  using Kernel = void(const float*, float*, int);
  const struct {
    const char* name;
    Kernel* kernel;
  } kernels[] = {
#define NAMED(kernel) {#kernel, kernel}
      NAMED(block_sums),
      NAMED(block_sums_without_barrier),
      NAMED(ring_without_second_barrier),
      NAMED(warp_primitives),
      NAMED(halves_of_a_warp),
      NAMED(product_of_matrices),
      NAMED(order_of_threads),
      NAMED(order_of_blocks),
      NAMED(indices),
      NAMED(unwritten_shared),
      NAMED(past_dynamic_shared),
      NAMED(past_its_memory),
      NAMED(divergent_barrier),
      NAMED(two_barriers),
      NAMED(barrier_against_shuffle),
      NAMED(ended_lane),
      NAMED(lane_outside_its_mask),
      NAMED(source_outside_the_mask),
      NAMED(short_warp),
      NAMED(misaligned_load),
      NAMED(add_without_atomic),
      NAMED(add_over_blocks_without_atomic),
      NAMED(add_with_atomic),
      NAMED(read_beside),
      NAMED(copy_vector),
      NAMED(read_eight_bytes),
      NAMED(last_block_adds_up<by_all>),
      NAMED(last_block_adds_up<no_release>),
      NAMED(last_block_adds_up<no_acquire>),
      NAMED(last_block_adds_up<by_the_first>),
      NAMED(last_block_adds_up<by_the_first_too_early>),
      NAMED(exchange_within_a_warp)};
  for (const auto& entry : kernels)
    if (std::strcmp(entry.name, name) == 0) try {
        cuda_on_cpu::launch(entry.name, entry.kernel, grid_size, block_size, size_t(shared_bytes), in, out, n);
        if (cudaGetLastError() != cudaSuccess) message = cudaGetErrorString(cudaGetLastError());
      } catch (const cuda_on_cpu::Failure& failure) { message = failure.what(); }
  return message.c_str();
}

extern "C" int allow_shared(long bytes) {
  return cudaFuncSetAttribute(unwritten_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
}

// Every 16-bit and 8-bit pattern as float, and floats rounded.
extern "C" void half_to_float(const uint16_t* in, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = __half2float(cuda_on_cpu_bits<__half>(in[i]));
}
extern "C" void bfloat16_to_float(const uint16_t* in, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = __bfloat162float(cuda_on_cpu_bits<__nv_bfloat16>(in[i]));
}
extern "C" void float8_to_float(const uint8_t* in, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = float(cuda_on_cpu_bits<__nv_fp8_e4m3>(in[i]));
}
extern "C" void float_to_half(const float* in, uint16_t* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = __float2half_rn(in[i]).bits;
}
extern "C" void float_to_bfloat16(const float* in, uint16_t* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = __float2bfloat16_rn(in[i]).bits;
}
