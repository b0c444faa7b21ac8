// Launches of inference: every word type of a prepared table.
#include "forward.cuh"
#include "launch.cuh"
#include "launch.h"

namespace {

template <class Word>
void launch_logits(const LogitsArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size, outputs = (1 + arguments.head.num_dendrites) * arguments.head.num_labels;
  const Launch launch{"dsn_logits", arguments.tokens, hidden_size, stream};
  const size_t shared_bytes = sum_bytes(arguments.plan, hidden_size, false) +
      sizeof(float) * size_t(rows_of_block(arguments.plan, hidden_size)) * size_t(outputs);
  with_shape(hidden_size, is_aligned(arguments.table) && is_aligned(arguments.head.weight), [&](auto shape) {
    launch(logits_kernel<Word, decltype(shape)>, blocks_of(arguments.plan, arguments.tokens, hidden_size),
           arguments.plan.splits, 32 * warps_of_block(hidden_size), shared_bytes, arguments);
  });
}

}  // namespace

void logits(const LogitsArguments& arguments, void* stream) {
  with_table_word(arguments.table.word_type,
                  [&](auto word) { launch_logits<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}
