// The kernels of one instruction set. This file is compiled once for each, with INSTRUCTION_SET as its name. The
// functions that it includes are in anonymous namespaces, and it uses no standard template that might not be inlined:
// the linker keeps one copy of an inline function, and one compiled for AVX-512 must not serve a processor without it.
#include "arguments.h"
#include "dsn_logits.h"
#include "dsn_logits_folded.h"
#include "dsn_window_logits.h"

// Where only the engine is built, as for a browser, the kernels of training are left out.
#ifdef DENDRITIC_BERT_NO_TRAINING
#define TRAINING(kernel) nullptr
#else
#define TRAINING(kernel) kernel
#include "embed_pool.h"
#include "embed_pool_backward.h"
#include "window_pool.h"
#include "window_pool_backward.h"
#endif

#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

namespace dendritic_bert {

extern const Kernels CONCATENATE(kernels_, INSTRUCTION_SET);
const Kernels CONCATENATE(kernels_, INSTRUCTION_SET) = {STRING(INSTRUCTION_SET),
                                                        dsn_logits,
                                                        dsn_logits_folded,
                                                        dsn_window_logits,
                                                        TRAINING(embed_pool),
                                                        TRAINING(backward_rows),
                                                        TRAINING(backward_segments),
                                                        TRAINING(window_pool),
                                                        TRAINING(window_pool_backward),
                                                        TRAINING(window_pool_words)};

}  // namespace dendritic_bert
