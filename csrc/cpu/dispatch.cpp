// Chooses the kernels of the best instruction set that this processor has, once, at their first use.
#include <cstdlib>
#include <cstring>

#include "arguments.h"

namespace dendritic_bert {

extern const Kernels kernels_baseline;
#ifdef HAVE_AVX2
extern const Kernels kernels_avx2;
#endif
#ifdef HAVE_AVX512
extern const Kernels kernels_avx512;
#endif

static const Kernels& choose_kernels() {
  // DENDRITIC_BERT_CPU is for tests and comparisons. It may name a lower instruction set than the processor's best; a
  // higher one has no effect. "avx512_vnni" and "avx2_vnni" (window_int8_dispatch.cpp) are "avx512" and "avx2" here.
  const char* at_most = std::getenv("DENDRITIC_BERT_CPU");
  const bool below_avx512 = at_most && std::strncmp(at_most, "avx512", 6) != 0;
  const bool below_avx2 = below_avx512 && std::strncmp(at_most, "avx2", 4) != 0;
  (void)below_avx2;
#ifdef HAVE_AVX512
  if (!below_avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return kernels_avx512;
#endif
#ifdef HAVE_AVX2
  // Every processor with AVX2 and FMA has F16C too.
  if (!below_avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2;
#endif
  return kernels_baseline;
}

const Kernels& chosen_kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace dendritic_bert
