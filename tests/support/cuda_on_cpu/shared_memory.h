// __shared__ is thread_local here. The linker places all such variables of this library, static and dynamic, in one
// piece of memory, which is overwritten before each block: what a block reads without having written it is NaN, or -1
// in an integer.
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "executor.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_cpu {

struct ThreadLocals {
  unsigned char* begin = nullptr;
  size_t bytes = 0;
};

// Where the calling OS thread has the thread-local variables of the library that holds `dynamic_shared`.
inline ThreadLocals thread_locals() {
  ThreadLocals found;
  dynamic_shared[0] = 0;  // the thread-local variables of a library are allocated at the first access
  dl_iterate_phdr([](dl_phdr_info* info, size_t, void* result) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& header = info->dlpi_phdr[i];
      auto* begin = static_cast<unsigned char*>(info->dlpi_tls_data);
      if (header.p_type != PT_TLS || !begin) continue;
      if (dynamic_shared < begin || dynamic_shared >= begin + header.p_memsz) continue;
      *static_cast<ThreadLocals*>(result) = {begin, header.p_memsz};
      return 1;
    }
    return 0;
  }, &found);
  if (!found.begin) throw Failure("the thread-local variables of the library were not found");
  return found;
}

// The shared memory of one block: filled with 0xFF, and guarded behind its dynamic part.
class SharedMemory {
 public:
  SharedMemory(const ThreadLocals& locals, size_t dynamic_bytes) : end_(dynamic_shared + dynamic_bytes) {
    std::memset(locals.begin, 0xFF, size_t(dynamic_shared - locals.begin) + dynamic_bytes);
    unsigned char* behind = dynamic_shared + sizeof(dynamic_shared);
    std::memset(behind, 0xFF, size_t(locals.begin + locals.bytes - behind));
    std::memset(end_, canary, canary_bytes);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(end_, canary_bytes);
#endif
  }
  ~SharedMemory() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(end_, canary_bytes);
#endif
  }
  SharedMemory(const SharedMemory&) = delete;

  bool intact() const {
#if !defined(__SANITIZE_ADDRESS__)
    for (size_t i = 0; i < canary_bytes; ++i)
      if (end_[i] != canary) return false;
#endif
    return true;
  }

 private:
  static constexpr unsigned char canary = 0xA5;
  unsigned char* end_;
};

}  // namespace cuda_on_cpu
