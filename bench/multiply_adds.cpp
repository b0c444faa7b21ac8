// How fast the processor multiplies and adds: chains of fused multiply-adds in registers, without a load. As many
// chains as keep both units busy for the four cycles that one takes. bench_windows.py compiles it for this machine.
#include <cstdint>

#if defined(__AVX512F__)
constexpr int lanes = 16, chains = 24;
#elif defined(__AVX2__)
constexpr int lanes = 8, chains = 12;
#else
constexpr int lanes = 4, chains = 8;
#endif
typedef float Vec __attribute__((vector_size(lanes * sizeof(float))));

// At least `count` multiply-adds.
extern "C" float multiply_adds(int64_t count) {
  Vec sum[chains], factor, term;
#pragma GCC unroll 24
  for (int i = 0; i < chains; ++i) sum[i] = Vec{} + float(i);
  factor = Vec{} + 0.5f;
  term = Vec{} + 1.0f;
  for (int64_t done = 0; done < count; done += chains * lanes) {
#pragma GCC unroll 24
    for (int i = 0; i < chains; ++i) sum[i] = sum[i] * factor + term;
  }
  float total = 0;
#pragma GCC unroll 24
  for (int i = 0; i < chains; ++i) total += sum[i][0];
  return total;
}
