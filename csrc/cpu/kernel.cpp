// The kernels of one instruction set. This file is compiled once for each, with INSTRUCTION_SET as its name. The
// functions that it includes are in anonymous namespaces, and it uses no standard template that might not be inlined:
// the linker keeps one copy of an inline function, and one compiled for AVX-512 must not serve a processor without it.
#include "arguments.h"
#include "dsn_logits.h"
#include "dsn_logits_folded.h"
#include "dsn_window_logits.h"
#include "embed_pool.h"
#include "embed_pool_backward.h"
#include "window_pool.h"
#include "window_pool_backward.h"

#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

namespace dendritic_bert {

extern const Kernels CONCATENATE(kernels_, INSTRUCTION_SET);
const Kernels CONCATENATE(kernels_, INSTRUCTION_SET) = {
    STRING(INSTRUCTION_SET), dsn_logits,        dsn_logits_folded, dsn_window_logits,    embed_pool,
    backward_rows,           backward_segments, window_pool,       window_pool_backward, window_pool_words};

}  // namespace dendritic_bert
