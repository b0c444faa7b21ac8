// Launches of question answering: every word type of a prepared table.
#include "token_logits.cuh"
#include "launch.cuh"
#include "launch.h"

namespace {

template <class Word>
void launch_token_logits(const TokenLogitsArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size, warps = warps_of_block(hidden_size);
  const Launch launch{"dsn_token_logits", arguments.tokens, hidden_size, stream};
  with_shape(hidden_size, is_aligned(arguments.table) && is_aligned(arguments.head.weight), [&](auto shape) {
    const size_t groups = size_t(warps) * decltype(shape)::groups;
    launch(token_logits_kernel<Word, decltype(shape)>, blocks_of(arguments.plan, arguments.tokens, hidden_size),
           arguments.plan.splits, 32 * warps, sizeof(float) * groups * size_t(arguments.head.num_dendrites), arguments);
  });
}

}  // namespace

void token_logits(const TokenLogitsArguments& arguments, void* stream) {
  with_table_word(arguments.table.word_type,
                  [&](auto word) { launch_token_logits<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}
