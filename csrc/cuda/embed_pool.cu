// Launches of training's forward: every type of parameters.
#include "forward.cuh"
#include "launch.cuh"
#include "launch.h"

namespace {

template <class Word>
void launch_context(const ContextArguments& arguments, const Tokens& tokens, cudaStream_t stream) {
  const int64_t size = arguments.num_types * arguments.num_positions * arguments.hidden_size;
  const Launch launch{"embed_pool's context table", tokens, arguments.hidden_size, stream};
  launch(context_kernel<Word>, std::min<int64_t>((size + 255) / 256, 65536), 1, 256, 0, arguments);
}

template <class Word>
void launch_embed_pool(const ForwardArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size;
  const Launch launch{"embed_pool", arguments.tokens, hidden_size, stream};
  with_shape(hidden_size, is_aligned(arguments.table), [&](auto shape) {
    launch(embed_pool_kernel<Word, decltype(shape)>, blocks_of(arguments.plan, arguments.tokens, hidden_size),
           arguments.plan.splits, 32 * warps_of_block(hidden_size),
           sum_bytes(arguments.plan, hidden_size, arguments.dropout.embed_threshold > 0), arguments);
  });
}

}  // namespace

void context(const ContextArguments& arguments, const Tokens& tokens, void* stream) {
  with_parameter(arguments.type,
                  [&](auto word) { launch_context<decltype(word)>(arguments, tokens, static_cast<cudaStream_t>(stream)); });
}

void embed_pool(const ForwardArguments& arguments, void* stream) {
  with_parameter(arguments.table.word_type,
                  [&](auto word) { launch_embed_pool<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}
