// What an x86-64 processor and its system have, by CPUID. __builtin_cpu_supports would say the same, but in the library
// that zig links it says no to everything.
#pragma once

#ifdef __x86_64__

#include <cpuid.h>

#include <cstdint>

namespace dendritic_bert {
namespace {

struct Processor {
  bool avx2 = false, avx_vnni = false;                            // AVX2 with FMA and F16C
  bool avx512 = false, avx512_vnni = false, avx512_bf16 = false;  // F with BW, DQ and VL
  bool amx = false;                                               // tiles, and products of bfloat16 and of int8

  Processor() {
    uint32_t eax, ebx, ecx, edx;
    const auto is_set = [](uint32_t bits, int bit) { return (bits >> bit & 1) != 0; };
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !is_set(ecx, 27)) return;  // OSXSAVE, without which no XGETBV
    const bool has_fma = is_set(ecx, 12), has_f16c = is_set(ecx, 29);
    // The registers that the system keeps for each thread: bits 1 and 2 are XMM and YMM, 5 to 7 those of AVX-512, 17
    // and 18 the tiles of AMX and their shapes.
    uint32_t kept, unused;
    __asm__("xgetbv" : "=a"(kept), "=d"(unused) : "c"(0));
    if ((kept & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return;
    const uint32_t most_subleaf = eax;
    avx2 = is_set(ebx, 5) && has_fma && has_f16c;
    avx512 = avx2 && (kept & 0xE6) == 0xE6 && is_set(ebx, 16) && is_set(ebx, 17) && is_set(ebx, 30) && is_set(ebx, 31);
    avx512_vnni = avx512 && is_set(ecx, 11);
    const bool has_tiles = (kept & 0x60000) == 0x60000 && is_set(edx, 22) && is_set(edx, 24) && is_set(edx, 25);
    if (most_subleaf < 1 || !__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) return;
    avx_vnni = avx2 && is_set(eax, 4);
    avx512_bf16 = avx512 && is_set(eax, 5);
    amx = avx512_bf16 && avx512_vnni && has_tiles;
  }
};

}  // namespace
}  // namespace dendritic_bert

#endif
