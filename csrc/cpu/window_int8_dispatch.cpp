// Chooses the kernel of dsn_window_logits_int8 for this processor, once, at its first use. All of them give the same
// bits.
#include <cstdlib>
#include <cstring>

#include "amx.h"
#include "processor.h"
#include "window_int8_arguments.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#ifdef DENDRITIC_BERT_AMX
extern "C" bool dendritic_bert_may_use_amx();  // dispatch.cpp
#endif

namespace dendritic_bert {

extern const Int8Kernel int8_kernel_baseline;
#ifdef __x86_64__
extern const Int8Kernel int8_kernel_avx2, int8_kernel_avx2_vnni, int8_kernel_avx512, int8_kernel_avx512_vnni;
#endif
#ifdef DENDRITIC_BERT_AMX
extern const Int8Kernel int8_kernel_amx;
#endif
#ifdef __aarch64__
extern const Int8Kernel int8_kernel_neon_dot;

// Whether the processor multiplies four int8 of a lane. All of Apple's do.
static bool has_dot_products() {
#if defined(__linux__)
  constexpr unsigned long dot_products = 1ul << 20;  // HWCAP_ASIMDDP of Linux's asm/hwcap.h
  return (getauxval(AT_HWCAP) & dot_products) != 0;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}
#endif

// The lowest first: `at_most`, if it is not null, names the highest one to be used. "avx2" and "avx512" are those
// without products of int8, which a processor may have beside either.
static const Int8Kernel* choose_int8_kernel(const char* at_most) {
  const Int8Kernel* chosen = &int8_kernel_baseline;
  bool is_done = at_most && std::strcmp(at_most, "baseline") == 0;
  [[maybe_unused]] const auto offer = [&](const Int8Kernel& kernel, bool is_supported) {
    if (is_done) return;
    if (is_supported) chosen = &kernel;
    is_done = at_most && std::strcmp(at_most, kernel.name) == 0;
  };
#ifdef __x86_64__
  const Processor processor;
  offer(int8_kernel_avx2, processor.avx2);
  offer(int8_kernel_avx2_vnni, processor.avx_vnni);
  offer(int8_kernel_avx512, processor.avx512);
  offer(int8_kernel_avx512_vnni, processor.avx512_vnni);
#endif
#ifdef DENDRITIC_BERT_AMX
  if (!is_done) offer(int8_kernel_amx, processor.avx512_vnni && dendritic_bert_may_use_amx());
#endif
#ifdef __aarch64__
  offer(int8_kernel_neon_dot, has_dot_products());
#endif
  return chosen;
}

static const Int8Kernel*& chosen_kernel() {
#ifndef __wasm__
  static const Int8Kernel* chosen = choose_int8_kernel(std::getenv("DENDRITIC_BERT_CPU"));
#else
  static const Int8Kernel* chosen = &int8_kernel_baseline;  // without asking: a page has no environment
#endif
  return chosen;
}

const Int8Kernel& chosen_int8_kernel() { return *chosen_kernel(); }

void limit_int8_kernel(const char* at_most) { chosen_kernel() = choose_int8_kernel(at_most); }

}  // namespace dendritic_bert
