// dsn_logits: token ids to logits in one launch, by the loop of pooling.cuh and the head of head.cuh.
#include "head.cuh"
#include "launch.cuh"
#include "launchers.h"
#include "pooling.cuh"

namespace dendritic_bert {

// Five blocks per multiprocessor leave 96 registers per thread, which hold all the loads of a step; without the second
// number of the launch bounds ptxas aims at 72 and keeps 16 bytes per thread in local memory.
template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, S::width == Width::any ? 1
                                                  : S::values == 8       ? 5
                                                                         : 4)
    dsn_logits_kernel(const LogitsArguments arguments) {
  DYNAMIC_SHARED(memory);
  const int hidden_size = arguments.table.hidden_size, num_labels = arguments.head.num_labels;
  BlockSums block;
  float* const z = place_sums<S>(arguments.plan, hidden_size, false, reinterpret_cast<float*>(memory), block);
  sum_rows<Word, S, false>(arguments, block);
  if (!combine_splits(arguments.plan, block, hidden_size)) return;

  __shared__ float beta_share[head_rows];
  const int64_t first_row = int64_t(blockIdx.x) * block.rows;
  const int64_t rows_left = arguments.tokens.rows - first_row;
  const int rows = rows_left < block.rows ? int(rows_left) : block.rows;
  const int row_stride = block.writers * block.stride, outputs = (1 + arguments.head.num_dendrites) * num_labels;
  for (int r = 0; r < rows; ++r) {
    const PoolingFactors factors = pooling_factors(arguments.tokens.pooling, block.num_valid[r * block.writers]);
    for (int h = threadIdx.x; h < hidden_size; h += blockDim.x) block.sums[r * row_stride + h] *= factors.scale;
    if (threadIdx.x == 0) beta_share[r] = factors.beta_share;
  }
  __syncthreads();
  multiply_head<S::width != Width::any>(
      arguments.head, hidden_size, block.sums, row_stride, rows, z, threadIdx.x, [&](int r, int output, float product) {
    return product + arguments.head.bias[output] + beta_share[r] * arguments.head.beta_bias[output];
  });
  __syncthreads();
  for (int i = threadIdx.x; i < rows * num_labels; i += blockDim.x)
    arguments.logits[first_row * num_labels + i] =
        apply_dendrites(arguments.head, i % num_labels, z + i / num_labels * outputs);
}

void launch_dsn_logits(const LogitsArguments& arguments, void* stream) {
  const Plan& plan = arguments.plan;
  const int hidden_size = arguments.table.hidden_size;
  const int outputs = (1 + arguments.head.num_dendrites) * arguments.head.num_labels;
  const size_t shared_bytes =
      sum_bytes(plan, hidden_size, false) + sizeof(float) * size_t(rows_of_block(plan, hidden_size)) * size_t(outputs);
  const bool aligned = is_aligned(arguments.table) && is_aligned(arguments.head.weight);
  const Launch launch{"dsn_logits", arguments.tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  with_table_word(arguments.table.word_type, [&](auto word) {
    with_shape(hidden_size, aligned, [&](auto shape) {
      launch(dsn_logits_kernel<decltype(word), decltype(shape)>, blocks_of(plan, arguments.tokens, hidden_size),
             plan.splits, 32 * warps_of_block(hidden_size), shared_bytes, arguments);
    });
  });
}

}  // namespace dendritic_bert
