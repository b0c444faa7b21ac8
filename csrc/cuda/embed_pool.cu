// embed_pool: token ids to pooled rows, for training, by the loop of pooling.cuh. The epilogue applies gamma, beta and
// the dropout of pooled rows, and keeps what the backward pass needs.
#include "launch.cuh"
#include "launchers.h"
#include "pooling.cuh"

namespace dendritic_bert {

// No minimum of blocks per multiprocessor: Philox gains more from registers.
template <class Word, class S>
__global__ void __launch_bounds__(max_threads<S>, 1) embed_pool_kernel(const ForwardArguments arguments) {
  DYNAMIC_SHARED(memory);
  const int hidden_size = arguments.table.hidden_size;
  const Dropout& dropout = arguments.dropout;
  const bool drop = dropout.embed_threshold > 0;
  BlockSums block;
  place_sums<S>(arguments.plan, hidden_size, drop, reinterpret_cast<float*>(memory), block);
  sum_rows<Word, S, true>(arguments, block);
  if (!combine_splits(arguments.plan, block, hidden_size)) return;

  const int64_t first_row = int64_t(blockIdx.x) * block.rows;
  const uint64_t seed = dropout.seed ? uint64_t(*dropout.seed) : 0;
  for (int r = 0; r < block.rows && first_row + r < arguments.tokens.rows; ++r) {
    const int64_t row = first_row + r;
    const int slot = r * block.writers;
    const PoolingFactors factors = pooling_factors(arguments.tokens.pooling, block.num_valid[slot]);
    const float scale = factors.scale * dropout.embed_scale;
    for (int h = 4 * threadIdx.x; h < hidden_size; h += 4 * blockDim.x) {
      float keep[4] = {1, 1, 1, 1};
      if (dropout.pool_threshold > 0) draw_mask(seed, dropout.pool_threshold, h, row, 0, pool_stream, keep);
      for (int i = 0; i < 4 && h + i < hidden_size; ++i) {
        const float pooled_hat = block.sums[slot * block.stride + h + i] * scale;
        const float beta_share = drop ? block.kept[slot * block.stride + h + i] * scale : factors.beta_share;
        const float gamma = as_float(static_cast<const Word*>(arguments.ln_weight)[h + i]);
        const float beta = as_float(static_cast<const Word*>(arguments.ln_bias)[h + i]);
        arguments.pooled_hat[row * hidden_size + h + i] = pooled_hat;
        store_as(static_cast<Word*>(arguments.pooled) + row * hidden_size + h + i,
                 fmaf(pooled_hat, gamma, beta_share * beta) * keep[i] * dropout.pool_scale);
      }
    }
  }
}

void launch_embed_pool(const ForwardArguments& arguments, void* stream) {
  const Plan& plan = arguments.plan;
  const int hidden_size = arguments.table.hidden_size;
  const size_t shared_bytes = sum_bytes(plan, hidden_size, arguments.dropout.embed_threshold > 0);
  const Launch launch{"embed_pool", arguments.tokens, hidden_size, static_cast<cudaStream_t>(stream)};
  with_parameter(arguments.table.word_type, [&](auto word) {
    with_shape(hidden_size, is_aligned(arguments.table), [&](auto shape) {
      launch(embed_pool_kernel<decltype(word), decltype(shape)>, blocks_of(plan, arguments.tokens, hidden_size),
             plan.splits, 32 * warps_of_block(hidden_size), shared_bytes, arguments);
    });
  });
}

}  // namespace dendritic_bert
