// Counts the bytes that kernels load and store, address by address: linked in the place of races.cpp, with the same calls
// that -fsanitize=thread makes the compiler insert. Shared memory, stacks and the built-in variables are left out: what
// remains is the memory of tensors. An atomic operation counts as a store.
#include <pthread.h>

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "executor.h"
#include "races.h"
#include "shared_memory.h"

namespace cuda_on_cpu {
namespace {

constexpr uintptr_t page_bytes = 4096;

struct Page {
  std::array<uint32_t, page_bytes> read{}, written{};  // how often each byte was
};

struct State {
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  ThreadLocals shared;
  uintptr_t stack = 0, stack_bytes = 0;
  bool running = false, atomic = false;
};
State state;

template <class T>
bool is_in(uintptr_t address, const T& object) {
  return address - reinterpret_cast<uintptr_t>(&object) < sizeof object;
}

void access(const void* pointer, size_t bytes, bool is_write) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
  if (!state.running || (state.atomic && !is_write) || on_a_fiber_stack(pointer) || is_in(begin, threadIdx) ||
      is_in(begin, blockIdx) || is_in(begin, blockDim) || is_in(begin, gridDim) ||
      begin - reinterpret_cast<uintptr_t>(state.shared.begin) < state.shared.bytes ||
      begin - state.stack < state.stack_bytes)
    return;
  for (uintptr_t address = begin; address < begin + bytes; ++address) {
    auto& page = state.pages[address / page_bytes];
    if (!page) page = std::make_unique<Page>();
    ++(is_write ? page->written : page->read)[address % page_bytes];
  }
}

void begin_launch() {
  state.shared = thread_locals();
  pthread_attr_t attributes;
  void* stack = nullptr;
  size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &stack, &bytes);
  pthread_attr_destroy(&attributes);
  state.stack = reinterpret_cast<uintptr_t>(stack);
  state.stack_bytes = bytes;
  state.running = true;
}

const RaceListener listener{begin_launch,
                            [](unsigned) {},
                            [](unsigned) {},
                            [] {},
                            [](unsigned, unsigned) {},
                            [] {},
                            [](const void*) { state.atomic = true; },
                            [] { state.atomic = false; },
                            [] {},
                            [] { state.running = false; }};

[[gnu::constructor]] void listen() { race_listener = &listener; }

}  // namespace
}  // namespace cuda_on_cpu

// Bytes of [begin, begin + size) that were read and written since they were last asked for, and how many different ones.
extern "C" void cuda_on_cpu_count(uintptr_t begin, uintptr_t size, int64_t* read, int64_t* written, int64_t* distinct) {
  using namespace cuda_on_cpu;
  *read = *written = *distinct = 0;
  for (auto& [number, page] : state.pages)
    for (uintptr_t i = 0; i < page_bytes; ++i) {
      if (number * page_bytes + i - begin >= size) continue;
      *read += page->read[i];
      *written += page->written[i];
      *distinct += page->read[i] || page->written[i];
      page->read[i] = page->written[i] = 0;
    }
}

#define ON_ACCESSES(bytes)                                                                            \
  extern "C" void __tsan_read##bytes(void* a) { cuda_on_cpu::access(a, bytes, false); }               \
  extern "C" void __tsan_write##bytes(void* a) { cuda_on_cpu::access(a, bytes, true); }               \
  extern "C" void __tsan_unaligned_read##bytes(void* a) { cuda_on_cpu::access(a, bytes, false); }     \
  extern "C" void __tsan_unaligned_write##bytes(void* a) { cuda_on_cpu::access(a, bytes, true); }
ON_ACCESSES(1)
ON_ACCESSES(2)
ON_ACCESSES(4)
ON_ACCESSES(8)
ON_ACCESSES(16)
extern "C" void __tsan_read_range(void* a, unsigned long bytes) { cuda_on_cpu::access(a, bytes, false); }
extern "C" void __tsan_write_range(void* a, unsigned long bytes) { cuda_on_cpu::access(a, bytes, true); }
extern "C" void __tsan_vptr_update(void*, void*) {}
extern "C" void __tsan_vptr_read(void*) {}
extern "C" void __tsan_init() {}
extern "C" char __tsan_atomic8_load(const volatile char* address, int) { return *address; }
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
