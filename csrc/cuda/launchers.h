// The launchers, one for each op or part of an op, for every word type: the .cu files define them and binding.cpp calls
// them. `stream` is a cudaStream_t. A launch that fails throws std::runtime_error with the name of the op and its
// sizes.
#pragma once

#include "arguments.h"

namespace dendritic_bert {

void launch_check_cu_seqlens(const CheckArguments& arguments, const Tokens& tokens, int hidden_size, void* stream);
void launch_dsn_logits(const LogitsArguments& arguments, void* stream);
void launch_dsn_token_logits(const LogitsArguments& arguments, void* stream);
void launch_dsn_window_logits(WindowArguments arguments, void* stream);
void launch_context_table(const ContextArguments& arguments, const Tokens& tokens, void* stream);
void launch_embed_pool(const ForwardArguments& arguments, void* stream);
void launch_token_gradients(const BackwardArguments& arguments, void* stream);
void launch_segment_sums(const SegmentArguments& arguments, const Tokens& tokens, void* stream);

}  // namespace dendritic_bert
