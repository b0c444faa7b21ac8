// Under -fsanitize=thread the compiler inserts a call for every load and store. Here those calls lead to `access`,
// which the file that includes this one defines. `alignment` is the one that the access relies on.
#pragma once

#include <link.h>
#include <pthread.h>

#include <cstdint>

#include "executor.h"
#include "races.h"
#include "shared_memory.h"

namespace cuda_on_cpu {

void access(const void* address, size_t bytes, bool is_write, size_t alignment, const void* code);

struct Range {
  uintptr_t begin = 0, bytes = 0;
  bool holds(const void* address) const { return reinterpret_cast<uintptr_t>(address) - begin < bytes; }
};

// Where shared memory lies, and what is neither shared nor global: stacks, and variables of the library such as
// threadIdx.
struct OtherMemory {
  Range shared, stack, library;

  static OtherMemory now() {
    OtherMemory found;
    const ThreadLocals locals = thread_locals();
    found.shared = {reinterpret_cast<uintptr_t>(locals.begin), locals.bytes};
    pthread_attr_t attributes;
    void* stack = nullptr;
    size_t bytes = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &bytes);
    pthread_attr_destroy(&attributes);
    found.stack = {reinterpret_cast<uintptr_t>(stack), bytes};
    dl_iterate_phdr([](dl_phdr_info* info, size_t, void* result) {
      uintptr_t end = 0;
      for (int i = 0; i < info->dlpi_phnum; ++i)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) end = info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
      const Range library{info->dlpi_addr, end};
      if (!library.holds(&threadIdx)) return 0;
      *static_cast<Range*>(result) = library;
      return 1;
    }, &found.library);
    return found;
  }

  bool is_global(const void* address) const {
    return !on_a_fiber_stack(address) && !shared.holds(address) && !stack.holds(address) && !library.holds(address);
  }
};

}  // namespace cuda_on_cpu

#define ON_ACCESS(name, bytes, is_write, alignment)                                        \
  extern "C" void name(void* address) {                                                    \
    cuda_on_cpu::access(address, bytes, is_write, alignment, __builtin_return_address(0)); \
  }
#define ON_ACCESSES(bytes)                                 \
  ON_ACCESS(__tsan_read##bytes, bytes, false, bytes)       \
  ON_ACCESS(__tsan_write##bytes, bytes, true, bytes)       \
  ON_ACCESS(__tsan_unaligned_read##bytes, bytes, false, 1) \
  ON_ACCESS(__tsan_unaligned_write##bytes, bytes, true, 1)
ON_ACCESSES(1)
ON_ACCESSES(2)
ON_ACCESSES(4)
ON_ACCESSES(8)
ON_ACCESSES(16)
extern "C" void __tsan_read_range(void* address, unsigned long bytes) {
  cuda_on_cpu::access(address, bytes, false, 1, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, unsigned long bytes) {
  cuda_on_cpu::access(address, bytes, true, 1, __builtin_return_address(0));
}
extern "C" void __tsan_vptr_update(void*, void*) {}
extern "C" void __tsan_vptr_read(void*) {}
extern "C" void __tsan_init() {}
extern "C" char __tsan_atomic8_load(const volatile char* address, int) { return *address; }  // guards of host statics
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
