// Chooses the kernels of the best instruction set that this processor has, once, at their first use.
#include <cstdlib>
#include <cstring>

#include "arguments.h"
#include "processor.h"

namespace dendritic_bert {

extern const Kernels kernels_baseline;
#ifdef __x86_64__
extern const Kernels kernels_avx2, kernels_avx512;
#endif

static const Kernels& choose_kernels() {
#ifdef __x86_64__
  // DENDRITIC_BERT_CPU is for tests and comparisons. It may name a lower instruction set than the processor's best; a
  // higher one has no effect. "avx512_vnni" and "avx2_vnni" (window_int8_dispatch.cpp) are "avx512" and "avx2" here.
  const char* at_most = std::getenv("DENDRITIC_BERT_CPU");
  const bool below_avx512 = at_most && std::strncmp(at_most, "avx512", 6) != 0;
  const bool below_avx2 = below_avx512 && std::strncmp(at_most, "avx2", 4) != 0;
  const Processor processor;
  if (processor.avx512 && !below_avx512) return kernels_avx512;
  if (processor.avx2 && !below_avx2) return kernels_avx2;
#endif
  return kernels_baseline;
}

const Kernels& chosen_kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace dendritic_bert
