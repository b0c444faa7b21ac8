// Chooses the kernel of dsn_window_logits_int8 for this processor, once, at its first use. All of them give the same
// bits.
#include <cstdlib>
#include <cstring>

#include "window_int8_arguments.h"

namespace dendritic_bert {

extern const Int8Kernel int8_kernel_baseline;
#ifdef HAVE_AVX2
extern const Int8Kernel int8_kernel_avx2;
#endif
#ifdef HAVE_AVX2_VNNI
extern const Int8Kernel int8_kernel_avx2_vnni;
#endif
#ifdef HAVE_AVX512
extern const Int8Kernel int8_kernel_avx512;
#endif
#ifdef HAVE_AVX512_VNNI
extern const Int8Kernel int8_kernel_avx512_vnni;
#endif

// The lowest first: `at_most`, if it is not null, names the highest one to be used. "avx2" and "avx512" are those without
// products of int8, which a processor may have beside either.
static const Int8Kernel* choose_int8_kernel(const char* at_most) {
  const Int8Kernel* chosen = &int8_kernel_baseline;
  bool is_done = at_most && std::strcmp(at_most, "baseline") == 0;
  const auto offer = [&](const Int8Kernel& kernel, bool is_supported) {
    if (is_done) return;
    if (is_supported) chosen = &kernel;
    is_done = at_most && std::strcmp(at_most, kernel.name) == 0;
  };
#ifdef HAVE_AVX2
  offer(int8_kernel_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
#ifdef HAVE_AVX2_VNNI
  offer(int8_kernel_avx2_vnni,
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avxvnni"));
#endif
#ifdef HAVE_AVX512
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  offer(int8_kernel_avx512, has_avx512);
#endif
#ifdef HAVE_AVX512_VNNI
  offer(int8_kernel_avx512_vnni, has_avx512 && __builtin_cpu_supports("avx512vnni"));
#endif
  return chosen;
}

static const Int8Kernel*& chosen_kernel() {
  static const Int8Kernel* chosen = choose_int8_kernel(std::getenv("DENDRITIC_BERT_CPU"));
  return chosen;
}

const Int8Kernel& chosen_int8_kernel() { return *chosen_kernel(); }

void limit_int8_kernel(const char* at_most) { chosen_kernel() = choose_int8_kernel(at_most); }

}  // namespace dendritic_bert
