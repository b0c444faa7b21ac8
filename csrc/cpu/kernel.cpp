// Compiled once for each instruction set, with INSTRUCTION_SET naming it. Everything is in anonymous namespaces and
// no out-of-line standard template is used: an inline function compiled for AVX-512 must not be the one that the
// linker keeps for the baseline.
#include "arguments.h"
#include "backward.h"
#include "folded.h"
#include "forward.h"

#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

namespace dendritic_bert {

extern const Kernels CONCATENATE(kernels_, INSTRUCTION_SET);
const Kernels CONCATENATE(kernels_, INSTRUCTION_SET) = {STRING(INSTRUCTION_SET), logits, folded_logits, forward,
                                                  rows_backward, ids_backward};

}  // namespace dendritic_bert
