// Launches of training's backward: every type of parameters.
#include "backward.cuh"
#include "launch.cuh"
#include "launch.h"

namespace {

template <class Word>
void launch_token_gradients(const BackwardArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size;
  const Launch launch{"embed_pool_backward", arguments.tokens, hidden_size, stream};
  const bool aligned = is_aligned(arguments.table) && is_aligned(arguments.d_word) && is_aligned(arguments.d_context);
  with_shape(hidden_size, aligned, [&](auto shape) {
    // One token at a time: the dropout mask and G need the registers.
    using OneByOne = typename decltype(shape)::OneByOne;
    launch(token_gradient_kernel<Word, OneByOne>, blocks_of(arguments.plan, arguments.tokens, hidden_size), 1,
           32 * warps_of_block(hidden_size), sum_bytes(arguments.plan, hidden_size, false), arguments);
  });
}

template <class Word>
void launch_runs(const RunArguments& arguments, const Tokens& tokens, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size;
  const Launch launch{"embed_pool_backward's sums over ids", tokens, hidden_size, stream};
  const int64_t chunks = (arguments.num_tokens + run_chunk - 1) / run_chunk;
  with_shape(hidden_size, is_aligned(arguments.table), [&](auto shape) {
    const int chunks_of_block = block_warps * decltype(shape)::groups;
    launch(run_kernel<Word, decltype(shape)>, (chunks + chunks_of_block - 1) / chunks_of_block,
           slices_of<decltype(shape)>(hidden_size), 32 * block_warps, 0, arguments);
  });
  launch(join_kernel, chunks, 1, 128, 0, arguments);
}

}  // namespace

void token_gradients(const BackwardArguments& arguments, void* stream) {
  with_parameter(arguments.table.word_type,
                  [&](auto word) { launch_token_gradients<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}

void run_sums(const RunArguments& arguments, const Tokens& tokens, void* stream) {
  with_parameter(arguments.table.word_type,
                  [&](auto word) { launch_runs<decltype(word)>(arguments, tokens, static_cast<cudaStream_t>(stream)); });
}
