// The context table of training, position + token type in float32. The parameters change at every step, so the table is
// made for each call; its K * P rows are few beside the tokens of a batch.
#include <algorithm>

#include "launch.cuh"
#include "launchers.h"

namespace dendritic_bert {

// One thread for each channel.
template <class Word>
__global__ void context_table_kernel(const ContextArguments arguments) {
  const int64_t size = arguments.num_types * arguments.num_positions * arguments.hidden_size;
  const int64_t type_size = arguments.num_positions * arguments.hidden_size;
  const Word* const position = static_cast<const Word*>(arguments.position);
  const Word* const token_type = static_cast<const Word*>(arguments.token_type);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x)
    arguments.context[i] = as_float(position[i % type_size]) +
                           as_float(token_type[i / type_size * arguments.hidden_size + i % arguments.hidden_size]);
}

void launch_context_table(const ContextArguments& arguments, const Tokens& tokens, void* stream) {
  const int64_t size = arguments.num_types * arguments.num_positions * arguments.hidden_size;
  const Launch launch{"embed_pool's context table", tokens, arguments.hidden_size, static_cast<cudaStream_t>(stream)};
  with_parameter(arguments.type, [&](auto word) {
    launch(context_table_kernel<decltype(word)>, std::min<int64_t>((size + 255) / 256, 65536), 1, 256, 0, arguments);
  });
}

}  // namespace dendritic_bert
