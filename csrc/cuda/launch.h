// The launchers, one for each kernel, for every word type: what binding.cpp calls and the .cu files define. `stream` is a
// cudaStream_t. A launch that fails throws std::runtime_error naming the kernel and its shape.
#pragma once

#include "arguments.h"

void sound(const SoundArguments& arguments, const Tokens& tokens, int hidden_size, void* stream);
void logits(const LogitsArguments& arguments, void* stream);
void token_logits(const TokenLogitsArguments& arguments, void* stream);
void context(const ContextArguments& arguments, const Tokens& tokens, void* stream);
void embed_pool(const ForwardArguments& arguments, void* stream);
void token_gradients(const BackwardArguments& arguments, void* stream);
void run_sums(const RunArguments& arguments, const Tokens& tokens, void* stream);
