#include "races.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "executor.h"
#include "shared_memory.h"

namespace cuda_on_cpu {
namespace {

struct Access {
  uint32_t block = 0;   // its number in the launch, from 1 on
  uint32_t epoch = 0;   // barriers its block had met at
  uint32_t clock = 0;   // barriers its thread had met at within its warp
  uint32_t fences = 0;  // that its thread had passed
  uint16_t thread = 0;
  bool atomic = false;
  const void* code = nullptr;
};

// Two neighbouring bytes: what wrote them last, and the first and the last to read them since. A race with a reader in
// between goes unseen.
struct Cell {
  Access write, first_read, last_read;
};
constexpr uintptr_t cell_bytes = 2, page_bytes = 4096;
using Page = std::array<Cell, page_bytes / cell_bytes>;

// An atomic operation on a word makes what its thread knows known to whoever comes to the word later.
struct Release {
  uint32_t epoch;
  uint16_t thread;
  std::vector<uint32_t> fences;
};

struct Acquired {
  Release release;
  uint32_t epoch;   // of the block that has learned of it; the others of that block know after the next barrier
  uint16_t thread;
};

struct Thread {
  uint32_t clock, fences;
  std::array<uint32_t, warp_size> seen;  // what the lanes of its warp did before these clocks lies before
};

// Two threads wrote the same place: no harm where they wrote the same value, which shows when the second has done so.
struct Doubt {
  const unsigned char* address = nullptr;
  size_t bytes = 0;
  std::array<unsigned char, 64> content;
  Access before, now;
};

struct State {
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  std::array<std::pair<uintptr_t, Page*>, 256> recent_pages{};  // by the low bits of their number
  std::vector<Thread> threads;
  ThreadLocals shared;
  uint32_t block = 0, epoch = 0;
  uint16_t thread = 0;
  bool running = false, atomic = false;
  std::unordered_map<const void*, std::map<uint32_t, Release>> releases;
  std::unordered_map<uint32_t, Acquired> acquired;
  Doubt doubt;
};
State state;

bool in_shared(uintptr_t address) {
  return address - reinterpret_cast<uintptr_t>(state.shared.begin) < state.shared.bytes;
}

bool ordered(const Access& before, bool is_write) {
  if (before.block == state.block) {
    if (before.thread == state.thread || before.epoch < state.epoch) return true;
    return before.thread / warp_size == state.thread / warp_size &&
           before.clock < state.threads[state.thread].seen[before.thread % warp_size];
  }
  const auto found = state.acquired.find(before.block);
  if (found == state.acquired.end()) return false;
  const Acquired& acquired = found->second;
  if (acquired.thread != state.thread && acquired.epoch == state.epoch) return false;
  const Release& release = acquired.release;
  const bool released = before.epoch < release.epoch || before.thread == release.thread;
  return released && (!is_write || before.fences < release.fences[before.thread]);
}

std::string source_of(const void* code) {
  Dl_info info;
  if (!dladdr(code, &info)) return "?";
  std::ostringstream command;
  const auto offset = static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase) - 1;
  command << "addr2line -s -e '" << info.dli_fname << "' 0x" << std::hex << offset;
  std::string place = "?";
  if (FILE* pipe = popen(command.str().c_str(), "r")) {
    char line[256];
    if (fgets(line, sizeof line, pipe)) place = line;
    pclose(pipe);
  }
  return place.substr(0, place.find_first_of("\n "));
}

std::string report(const Access& before, bool before_is_write, const void* address, bool is_write, const Access& now) {
  std::ostringstream text;
  text << "a race for " << (in_shared(reinterpret_cast<uintptr_t>(address)) ? "shared" : "global") << " memory: thread "
       << before.thread << (before.block == now.block ? "" : " of another block")
       << (before_is_write ? " wrote at " : " read at ") << source_of(before.code) << ", thread " << now.thread
       << (is_write ? " writes at " : " reads at ") << source_of(now.code) << ", and nothing puts them in an order";
  return text.str();
}

Cell& cell_at(uintptr_t address) {
  const uintptr_t number = address / page_bytes;
  auto& recent = state.recent_pages[number % state.recent_pages.size()];
  if (recent.first != number) {
    auto& page = state.pages[number];
    if (!page) page = std::make_unique<Page>();
    recent = {number, page.get()};
  }
  return (*recent.second)[address % page_bytes / cell_bytes];
}

// What became of the doubt, in words; "" where there was none or it was harmless.
std::string settle_doubt() {
  Doubt& doubt = state.doubt;
  if (!doubt.address) return "";
  const unsigned char* const address = doubt.address;
  doubt.address = nullptr;
  if (std::memcmp(address, doubt.content.data(), doubt.bytes) == 0) return "";
  return report(doubt.before, true, address, true, doubt.now);
}

void complain(const std::string& what) {
  if (!what.empty()) fail(what);
}

void access(const void* pointer, size_t bytes, bool is_write, const void* code) {
  if (!state.running || on_a_fiber_stack(pointer)) return;
  complain(settle_doubt());
  const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
  const bool shared = in_shared(begin);
  const Thread& self = state.threads[state.thread];
  const Access now{state.block, state.epoch, self.clock, self.fences, state.thread, state.atomic, code};
  const auto races_with = [&](const Access& before, bool before_is_write) {
    if (!before.block || (shared && before.block != state.block)) return false;
    return !(before.atomic && state.atomic) && !ordered(before, before_is_write);
  };
  for (uintptr_t address = begin / cell_bytes * cell_bytes; address < begin + bytes; address += cell_bytes) {
    Cell& cell = cell_at(address);
    if (races_with(cell.write, true)) {
      if (!is_write || state.atomic || bytes > state.doubt.content.size())
        complain(report(cell.write, true, pointer, is_write, now));
      if (!state.doubt.address) {
        std::memcpy(state.doubt.content.data(), pointer, bytes);
        state.doubt.address = static_cast<const unsigned char*>(pointer);
        state.doubt.bytes = bytes;
        state.doubt.before = cell.write;
        state.doubt.now = now;
      }
    }
    if (is_write) {
      for (const Access* read : {&cell.first_read, &cell.last_read})
        if (races_with(*read, false)) complain(report(*read, false, pointer, true, now));
      cell = {now, {}, {}};
    } else {
      cell.last_read = now;
      if (cell.first_read.block != state.block || cell.first_read.epoch != state.epoch) cell.first_read = now;
    }
  }
}

void begin_launch() {
  state.pages.clear();
  state.recent_pages.fill({});
  state.releases.clear();
  state.block = 0;
  state.shared = thread_locals();
}

void begin_block(unsigned threads) {
  ++state.block;
  state.epoch = 0;
  state.acquired.clear();
  state.doubt.address = nullptr;
  state.threads.assign(threads, Thread{1, 0, {}});
  state.atomic = false;
  state.running = true;
}

void check_doubt() {
  const std::string what = settle_doubt();
  if (!what.empty()) throw Failure("kernel " + kernel_and_block() + ": " + what + ".");
}

void run(unsigned thread) {
  check_doubt();
  state.thread = uint16_t(thread);
}

void warp_barrier(unsigned warp, unsigned lanes) {
  std::array<uint32_t, warp_size> seen{};
  for (unsigned i = 0; i < warp_size; ++i) {
    if (!(lanes >> i & 1)) continue;
    Thread& thread = state.threads[warp * warp_size + i];
    thread.seen[i] = ++thread.clock;
    for (unsigned k = 0; k < warp_size; ++k) seen[k] = std::max(seen[k], thread.seen[k]);
  }
  for (unsigned i = 0; i < warp_size; ++i)
    if (lanes >> i & 1) state.threads[warp * warp_size + i].seen = seen;
}

void begin_atomic(const void* address) {
  state.atomic = true;
  const auto found = state.releases.find(address);
  if (found != state.releases.end())
    for (const auto& [block, release] : found->second)
      if (block != state.block) state.acquired[block] = {release, state.epoch, state.thread};
  if (state.threads[state.thread].fences == 0) return;  // nothing is passed on without a fence
  std::vector<uint32_t> fences;
  for (const Thread& thread : state.threads) fences.push_back(thread.fences);
  state.releases[address][state.block] = {state.epoch, state.thread, std::move(fences)};
}

const RaceListener listener{begin_launch,
                            begin_block,
                            run,
                            [] { ++state.epoch; },
                            warp_barrier,
                            [] { ++state.threads[state.thread].fences; },
                            begin_atomic,
                            [] { state.atomic = false; },
                            check_doubt,
                            [] { state.running = false; }};

[[gnu::constructor]] void listen() { race_listener = &listener; }

}  // namespace
}  // namespace cuda_on_cpu

// What the compiler inserts under -fsanitize=thread.
#define ON_ACCESS(name, bytes, is_write) \
  extern "C" void name(void* address) {  \
    cuda_on_cpu::access(address, bytes, is_write, __builtin_return_address(0)); \
  }
#define ON_ACCESSES(bytes)                              \
  ON_ACCESS(__tsan_read##bytes, bytes, false)           \
  ON_ACCESS(__tsan_write##bytes, bytes, true)           \
  ON_ACCESS(__tsan_unaligned_read##bytes, bytes, false) \
  ON_ACCESS(__tsan_unaligned_write##bytes, bytes, true)
ON_ACCESSES(1)
ON_ACCESSES(2)
ON_ACCESSES(4)
ON_ACCESSES(8)
ON_ACCESSES(16)
extern "C" void __tsan_read_range(void* address, unsigned long bytes) {
  cuda_on_cpu::access(address, bytes, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, unsigned long bytes) {
  cuda_on_cpu::access(address, bytes, true, __builtin_return_address(0));
}
extern "C" void __tsan_vptr_update(void*, void*) {}
extern "C" void __tsan_vptr_read(void*) {}
extern "C" void __tsan_init() {}
extern "C" char __tsan_atomic8_load(const volatile char* address, int) { return *address; }  // guards of host statics
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
