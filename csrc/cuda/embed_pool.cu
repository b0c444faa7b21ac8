// Training: every type of parameters.
#include "launch.cuh"
#include "launch.h"

void context(const ContextArguments& arguments, const Tokens& tokens, void* stream) {
  with_parameter(arguments.type,
                 [&](auto word) { launch_context<decltype(word)>(arguments, tokens, static_cast<cudaStream_t>(stream)); });
}

void embed_pool(const ForwardArguments& arguments, void* stream) {
  with_parameter(arguments.table.word_type,
                 [&](auto word) { launch_embed_pool<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}
