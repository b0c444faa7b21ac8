// Do the rows of a packed batch follow one another? Kernels that write a result for each token ask before they do, since two
// rows that hold one token would both write it. One block looks at all of cu_seqlens: a row's own block could only find
// out by reading as much.
#include "launch.cuh"
#include "launch.h"

namespace {

constexpr int sound_threads = 1024;

__global__ void __launch_bounds__(sound_threads) sound_kernel(const SoundArguments arguments) {
  __shared__ int falls;
  if (threadIdx.x == 0)
    falls = at(arguments.cu_seqlens, 0) != 0 || at(arguments.cu_seqlens, arguments.rows) != arguments.total;
  __syncthreads();
  bool fall = false;
  for (int64_t row = threadIdx.x; row < arguments.rows; row += sound_threads)
    fall |= at(arguments.cu_seqlens, row) > at(arguments.cu_seqlens, row + 1);
  if (fall) atomicOr(&falls, 1);
  __syncthreads();
  if (threadIdx.x == 0) *arguments.sound = !falls;
  if (!falls || !arguments.rstd) return;
  for (int64_t token = threadIdx.x; token < arguments.total; token += sound_threads) arguments.rstd[token] = NAN;
}

}  // namespace

void sound(const SoundArguments& arguments, const Tokens& tokens, int hidden_size, void* stream) {
  const Launch launch{"the look at cu_seqlens", tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  launch(sound_kernel, arguments.rows > 0, 1, sound_threads, 0, arguments);
}
