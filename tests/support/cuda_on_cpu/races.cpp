#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "accesses.h"

namespace cuda_on_cpu {
namespace {

struct Access {
  uint32_t block = 0;   // the number of the block in the launch, from 1 on
  uint32_t epoch = 0;   // how many barriers the block had passed
  uint32_t clock = 0;   // how many barriers within its warp the thread had passed
  uint32_t fences = 0;  // how many fences the thread had passed
  uint16_t thread = 0;
  bool atomic = false;
  const void* code = nullptr;
};

// Two neighbouring bytes: the last access that wrote them, and the first and the last that have read them since. A race
// with a reader between those two goes unseen.
struct Cell {
  Access write, first_read, last_read;
};
constexpr uintptr_t cell_bytes = 2, page_bytes = 4096;
using Page = std::array<Cell, page_bytes / cell_bytes>;

// An atomic operation that follows a fence hands on, through its word, whatever the thread knew at the fence.
struct Release {
  uint32_t epoch;
  uint16_t thread;
  uint32_t fence_epoch;          // of the thread's last fence
  std::vector<uint32_t> fences;  // of each thread of the block
};

// The release of another block, met by an atomic operation of this block. A thread may rely on it once it has passed a
// fence behind that operation, or behind a barrier that follows it; the whole block may after the next barrier.
struct Observed {
  uint32_t block;
  Release release;
  uint16_t thread;
  uint32_t epoch;
  std::bitset<1024> fenced = {};
  uint32_t fence_epoch = UINT32_MAX;  // of the first of these fences
};

struct Thread {
  uint32_t clock, fences, fence_epoch;
  std::array<uint32_t, warp_size> seen;  // for each lane of its warp, the clock before which its accesses are ordered
};

// Two threads have written the same place. If both wrote the same value that is no race; it shows once the second has.
struct SecondWrite {
  const unsigned char* address = nullptr;
  size_t bytes = 0;
  std::array<unsigned char, 64> content;
  Access before, now;
};

struct State {
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  std::array<std::pair<uintptr_t, Page*>, 256> recent_pages{};  // by the low bits of their number
  std::vector<Thread> threads;
  OtherMemory other;
  std::unique_ptr<ArraysApart> apart;
  uint32_t block = 0, epoch = 0;
  uint16_t thread = 0;
  bool running = false, atomic = false;
  std::unordered_map<const void*, std::map<uint32_t, Release>> releases;
  std::vector<Observed> observed;
  SecondWrite second_write;
};
State state;

bool relies_on(const Observed& observed) { return observed.fenced[state.thread] || observed.fence_epoch < state.epoch; }

// A fence covers what its thread did before it and, behind a barrier, what the whole block did before that barrier.
bool released(const Access& before, bool is_write, const Release& release) {
  if (before.epoch < release.fence_epoch) return true;
  if (before.epoch >= release.epoch && before.thread != release.thread) return false;
  return !is_write || before.fences < release.fences[before.thread];
}

bool ordered(const Access& before, bool is_write) {
  if (before.block == state.block) {
    if (before.thread == state.thread || before.epoch < state.epoch) return true;
    return before.thread / warp_size == state.thread / warp_size &&
           before.clock < state.threads[state.thread].seen[before.thread % warp_size];
  }
  return std::any_of(state.observed.begin(), state.observed.end(), [&](const Observed& observed) {
    return observed.block == before.block && relies_on(observed) && released(before, is_write, observed.release);
  });
}

// The line of the kernel, passing over lines of the executor that are inlined there.
std::string source_of(const void* code) {
  Dl_info info;
  if (!dladdr(code, &info)) return "?";
  std::ostringstream command;
  const auto offset = static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase) - 1;
  command << "addr2line -i -s -e '" << info.dli_fname << "' 0x" << std::hex << offset;
  std::string place = "?";
  if (FILE* pipe = popen(command.str().c_str(), "r")) {
    char line[256];
    do {
      if (!fgets(line, sizeof line, pipe)) break;
      place = line;
    } while (place.compare(0, 14, "vector_types.h") == 0);
    pclose(pipe);
  }
  return place.substr(0, place.find_first_of("\n "));
}

std::string report(const Access& before, bool before_is_write, const void* address, bool is_write, const Access& now) {
  std::ostringstream text;
  text << "a race for " << (state.other.shared.holds(address) ? "shared" : "global") << " memory: thread "
       << before.thread << (before.block == now.block ? "" : " of another block")
       << (before_is_write ? " wrote at " : " read at ") << source_of(before.code) << ", thread " << now.thread
       << (is_write ? " writes at " : " reads at ") << source_of(now.code) << ", and nothing orders them";
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

// Reports the second write if it has changed the value; "" if it has not, or if there was none.
std::string report_second_write() {
  SecondWrite& second = state.second_write;
  if (!second.address) return "";
  const unsigned char* const address = second.address;
  second.address = nullptr;
  if (std::memcmp(address, second.content.data(), second.bytes) == 0) return "";
  return report(second.before, true, address, true, second.now);
}

void fail_if_reported(const std::string& what) {
  if (!what.empty()) fail(what);
}

void begin_launch(void* arguments, size_t bytes) {
  state.apart = std::make_unique<ArraysApart>(arguments, bytes);
  state.pages.clear();
  state.recent_pages.fill({});
  state.releases.clear();
  state.block = 0;
  state.other = OtherMemory::now();
}

void begin_block(unsigned threads) {
  ++state.block;
  state.epoch = 0;
  state.observed.clear();
  state.second_write.address = nullptr;
  state.threads.assign(threads, Thread{1, 0, 0, {}});
  state.atomic = false;
  state.running = true;
}

void check_second_write() {
  const std::string what = report_second_write();
  if (!what.empty()) throw Failure("kernel " + kernel_and_block() + ": " + what + ".");
}

void run(unsigned thread) {
  check_second_write();
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
  const Thread& self = state.threads[state.thread];
  const auto found = state.releases.find(address);
  if (found != state.releases.end())
    for (const auto& [block, release] : found->second)
      if (block != state.block) state.observed.push_back({block, release, state.thread, state.epoch});
  if (self.fences == 0) return;  // without a fence nothing is handed on
  std::vector<uint32_t> fences;
  for (const Thread& thread : state.threads) fences.push_back(thread.fences);
  state.releases[address][state.block] = {state.epoch, state.thread, self.fence_epoch, std::move(fences)};
}

void fence() {
  Thread& self = state.threads[state.thread];
  ++self.fences;
  self.fence_epoch = state.epoch;
  for (Observed& observed : state.observed) {
    if (observed.thread != state.thread && observed.epoch == state.epoch) continue;
    observed.fenced.set(state.thread);
    observed.fence_epoch = std::min(observed.fence_epoch, state.epoch);
  }
}

void end_launch() {
  state.running = false;
  state.apart.reset();
}

const RaceListener listener{begin_launch,       begin_block, run,          [] { ++state.epoch; },
                            warp_barrier,       fence,       begin_atomic, [] { state.atomic = false; },
                            check_second_write, end_launch};

[[gnu::constructor]] void listen() { race_listener = &listener; }

// Reports an access that is outside the arrays of the call, or misaligned; "" if it is neither.
std::string report_place(const void* pointer, size_t bytes, bool is_write, size_t alignment, const void* code) {
  const bool outside = state.other.is_global(pointer) && !is_in_an_array(pointer, bytes);
  const bool misaligned = reinterpret_cast<uintptr_t>(pointer) % alignment != 0;
  if (!outside && !misaligned) return "";
  return std::string(is_write ? "a store of " : "a load of ") + std::to_string(bytes) + " bytes at " + source_of(code) +
         (outside ? " lies outside every array of the call" : " is misaligned");
}

}  // namespace

void access(const void* pointer, size_t bytes, bool is_write, size_t alignment, const void* code) {
  if (!state.running || on_a_fiber_stack(pointer)) return;
  fail_if_reported(report_second_write());
  const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer);
  const bool shared = state.other.shared.holds(pointer);
  fail_if_reported(report_place(pointer, bytes, is_write, alignment, code));
  const Thread& self = state.threads[state.thread];
  const Access now{state.block, state.epoch, self.clock, self.fences, state.thread, state.atomic, code};
  const auto races_with = [&](const Access& before, bool before_is_write) {
    if (!before.block || (shared && before.block != state.block)) return false;
    return !(before.atomic && state.atomic) && !ordered(before, before_is_write);
  };
  for (uintptr_t address = begin / cell_bytes * cell_bytes; address < begin + bytes; address += cell_bytes) {
    Cell& cell = cell_at(address);
    if (races_with(cell.write, true)) {
      if (!is_write || state.atomic || bytes > state.second_write.content.size())
        fail_if_reported(report(cell.write, true, pointer, is_write, now));
      if (!state.second_write.address) {
        std::memcpy(state.second_write.content.data(), pointer, bytes);
        state.second_write.address = static_cast<const unsigned char*>(pointer);
        state.second_write.bytes = bytes;
        state.second_write.before = cell.write;
        state.second_write.now = now;
      }
    }
    if (is_write) {
      for (const Access* read : {&cell.first_read, &cell.last_read})
        if (races_with(*read, false)) fail_if_reported(report(*read, false, pointer, true, now));
      cell = {now, {}, {}};
    } else {
      cell.last_read = now;
      if (cell.first_read.block != state.block || cell.first_read.epoch != state.epoch) cell.first_read = now;
    }
  }
}

}  // namespace cuda_on_cpu
