// Counts the bytes that kernels load and store, address by address. It is linked in place of races.cpp, and the same
// calls, which -fsanitize=thread makes the compiler insert, lead to it. Shared memory, stacks and built-in variables
// are left out, so that the memory of tensors remains. An atomic operation counts as a store.
#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "accesses.h"

namespace cuda_on_cpu {
namespace {

constexpr uintptr_t page_bytes = 4096;

struct Page {
  std::array<uint32_t, page_bytes> read{}, written{};  // for each byte, how many times
};

struct State {
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  OtherMemory other;
  bool running = false, atomic = false;
};
State state;

void begin_launch(void*, size_t) {
  state.other = OtherMemory::now();
  state.running = true;
}

const RaceListener listener{begin_launch, [](unsigned) {}, [](unsigned) {}, [] {}, [](unsigned, unsigned) {}, [] {
}, [](const void*) { state.atomic = true; }, [] { state.atomic = false; }, [] {}, [] { state.running = false; }};

[[gnu::constructor]] void listen() { race_listener = &listener; }

}  // namespace

void access(const void* pointer, size_t bytes, bool is_write, size_t, const void*) {
  if (!state.running || (state.atomic && !is_write) || !state.other.is_global(pointer)) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
  for (uintptr_t address = begin; address < begin + bytes; ++address) {
    auto& page = state.pages[address / page_bytes];
    if (!page) page = std::make_unique<Page>();
    ++(is_write ? page->written : page->read)[address % page_bytes];
  }
}

}  // namespace cuda_on_cpu

// How many bytes of [begin, begin + size) were read and written since the last call, and how many different ones.
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
