// Chooses the kernels of the best instruction set that this processor has, once, at their first use.
#include <cstdlib>
#include <cstring>

#include "amx.h"
#include "arguments.h"
#include "processor.h"

#ifdef DENDRITIC_BERT_AMX
#include <sys/syscall.h>
#include <unistd.h>

// Whether this process may use AMX, for whose tiles it has to ask Linux once. The function has a name outside of this
// library, so that one that executes the instructions in software can answer in its place
// (tests/support/amx_emulator.cpp).
extern "C" __attribute__((visibility("default"), noinline)) bool dendritic_bert_may_use_amx() {
  constexpr long request_permission = 0x1023, tile_data = 18;  // of Linux's asm/prctl.h, which may be older
  return dendritic_bert::Processor().amx && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

namespace dendritic_bert {

extern const Kernels kernels_baseline;
#ifdef __x86_64__
extern const Kernels kernels_avx2, kernels_avx512;
#endif
#ifdef DENDRITIC_BERT_AMX
extern void (*const window_kernel_amx)(const WindowLogitsArguments&);

// Those of AVX-512 but for the one that multiplies bfloat16.
static const Kernels& kernels_amx() {
  static const Kernels kernels = [] {
    Kernels copy = kernels_avx512;
    copy.name = "amx";
    copy.dsn_window_logits = window_kernel_amx;
    return copy;
  }();
  return kernels;
}
#endif

static const Kernels& choose_kernels() {
#ifdef __x86_64__
  // DENDRITIC_BERT_CPU is for tests and comparisons. It may name a lower instruction set than the processor's best; a
  // higher one has no effect. "avx512_vnni" and "avx2_vnni" (window_int8_dispatch.cpp) are "avx512" and "avx2" here.
  const char* at_most = std::getenv("DENDRITIC_BERT_CPU");
  const bool below_amx = at_most && std::strcmp(at_most, "amx") != 0;
  const bool below_avx512 = below_amx && std::strncmp(at_most, "avx512", 6) != 0;
  const bool below_avx2 = below_avx512 && std::strncmp(at_most, "avx2", 4) != 0;
  const Processor processor;
#ifdef DENDRITIC_BERT_AMX
  if (processor.avx512_bf16 && !below_amx && dendritic_bert_may_use_amx()) return kernels_amx();
#endif
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
