// Whether cu_seqlens rises from 0 to the number of tokens. Kernels that write a result for each token ask before they
// do, because two rows that hold the same token would both write it. One block reads all of cu_seqlens: the block of a
// single row could find out only by reading as much.
#include "launch.cuh"
#include "launchers.h"

namespace dendritic_bert {

constexpr int check_threads = 1024;

__global__ void __launch_bounds__(check_threads) check_cu_seqlens_kernel(const CheckArguments arguments) {
  __shared__ int is_invalid;
  if (threadIdx.x == 0)
    is_invalid = arguments.cu_seqlens[0] != 0 || arguments.cu_seqlens[arguments.rows] != arguments.total;
  __syncthreads();
  bool falls = false;
  for (int64_t row = threadIdx.x; row < arguments.rows; row += check_threads)
    falls |= arguments.cu_seqlens[row] > arguments.cu_seqlens[row + 1];
  if (falls) atomicOr(&is_invalid, 1);
  __syncthreads();
  if (threadIdx.x == 0) *arguments.is_valid = !is_invalid;
  if (!is_invalid || !arguments.rstd) return;
  for (int64_t token = threadIdx.x; token < arguments.total; token += check_threads) arguments.rstd[token] = NAN;
}

void launch_check_cu_seqlens(const CheckArguments& arguments, const Tokens& tokens, int hidden_size, void* stream) {
  const Launch launch{"check_cu_seqlens", tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  launch(check_cu_seqlens_kernel, arguments.rows > 0, 1, check_threads, 0, arguments);
}

}  // namespace dendritic_bert
