// The gradients of training: every type of parameters.
#include "launch.cuh"
#include "launch.h"

void token_gradients(const BackwardArguments& arguments, void* stream) {
  with_parameter(arguments.table.word_type,
                 [&](auto word) { launch_token_gradients<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}

void run_sums(const RunArguments& arguments, const Tokens& tokens, void* stream) {
  with_parameter(arguments.table.word_type,
                 [&](auto word) { launch_runs<decltype(word)>(arguments, tokens, static_cast<cudaStream_t>(stream)); });
}
