#include "executor.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "fiber.h"
#include "races.h"
#include "shared_memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {

alignas(1024) thread_local unsigned char dynamic_shared[max_dynamic_shared + canary_bytes];
Settings settings;
const int mutant = [] {
  const char* number = std::getenv("CUDA_ON_CPU_MUTANT");
  return number ? std::atoi(number) : 0;
}();
int64_t launches = 0;
std::string refused;
const RaceListener* race_listener = nullptr;

namespace {

struct Thread {
  Context context;
  uint3 index;
  Primitive waits_at;
  Place place;
  unsigned mask, source;
  uint64_t value, result;
};

// Sets of lanes, one bit for each.
struct Warp {
  unsigned present = 0, runnable = 0, at_barrier = 0, ended = 0;
};

struct Block {
  std::vector<Thread> threads;
  std::array<Warp, 32> warps;
  unsigned num_threads = 0, num_warps = 0, num_ended = 0, num_at_barrier = 0, runnable_warps = 0;
  unsigned current = 0;
  Context scheduler;
  Stacks stacks;
  std::string kernel;
  void (*call)(const void*, const void*) = nullptr;
  const void *function = nullptr, *arguments = nullptr;
  std::string failure;
  uint64_t random = 0;
};

Block block;
std::mutex one_launch_at_a_time;
std::unordered_map<const void*, int64_t> allowed_shared;

const char* name_of(Primitive primitive) {
  static const char* const names[] = {"running", "__syncthreads", "__syncwarp", "a shuffle", "a ballot", "a product"};
  return names[int(primitive)];
}

// The name of a template's instance, "dsn_logits_kernel<float, Shape<16, 1, (Width)0> >", if the library has it.
std::string name_of(const void* kernel, const char* otherwise) {
  Dl_info info;
  if (!dladdr(kernel, &info) || !info.dli_sname || info.dli_saddr != kernel) return otherwise;
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), std::free);
  if (!name) return otherwise;
  std::string result = name.get();
  const size_t parameters = result.find(">(");  // an instance; what is not a template has no other parenthesis
  result.resize(std::min(result.size(), result.find('(', parameters == std::string::npos ? 0 : parameters)));
  const std::string scope = "dendritic_bert::";
  for (size_t at = result.find(scope); at != std::string::npos; at = result.find(scope)) result.erase(at, scope.size());
  return result.substr(result.compare(0, 5, "void ") == 0 ? 5 : 0);
}

std::string text(uint3 index) {
  std::ostringstream out;
  out << '(' << index.x << ", " << index.y << ", " << index.z << ')';
  return out.str();
}

std::string text(Place place) {
  const char* slash = std::strrchr(place.file, '/');
  return std::string(slash ? slash + 1 : place.file) + ":" + std::to_string(place.line);
}

std::string where() { return "kernel " + kernel_and_block() + ": "; }

// "threads 0-31 at __syncthreads (forward.cuh:88), threads 32-127 ended"
std::string whereabouts() {
  const auto describe = [](unsigned i) -> std::string {
    const Thread& thread = block.threads[i];
    if (block.warps[i / warp_size].ended >> i % warp_size & 1) return "ended";
    std::string result = "at " + std::string(name_of(thread.waits_at)) + " (" + text(thread.place) + ")";
    if (thread.waits_at != Primitive::syncthreads && thread.waits_at != Primitive::none) {
      std::ostringstream mask;
      mask << " with mask 0x" << std::hex << thread.mask;
      result += mask.str();
    }
    return result;
  };
  std::string result;
  for (unsigned begin = 0; begin < block.num_threads;) {
    const std::string state = describe(begin);
    unsigned end = begin + 1;
    while (end < block.num_threads && describe(end) == state) ++end;
    result += (begin ? ", threads " : "threads ") + std::to_string(begin) +
              (end - begin > 1 ? "-" + std::to_string(end - 1) : "") + " " + state;
    begin = end;
    if (result.size() > 1000) return result + ", ...";
  }
  return result;
}

void set_runnable(unsigned warp, unsigned lanes) {
  block.warps[warp].runnable |= lanes;
  if (block.warps[warp].runnable) block.runnable_warps |= 1u << warp;
}

// Takes the current thread from those that may run; with yield, the scheduler runs until it chooses the thread again.
void wait() {
  Warp& warp = block.warps[block.current / warp_size];
  warp.runnable &= ~(1u << block.current % warp_size);
  if (!warp.runnable) block.runnable_warps &= ~(1u << block.current / warp_size);
}

void yield() { switch_context(block.threads[block.current].context, block.scheduler); }

void thread_main() {
  block.call(block.function, block.arguments);
  block.warps[block.current / warp_size].ended |= 1u << block.current % warp_size;
  ++block.num_ended;
  wait();
  yield();
  __builtin_unreachable();
}

unsigned random_bit(unsigned bits) {
  block.random ^= block.random << 13;
  block.random ^= block.random >> 7;
  block.random ^= block.random << 17;
  unsigned skip = unsigned(block.random >> 32) % unsigned(__builtin_popcount(bits));
  for (; skip; --skip) bits &= bits - 1;
  return unsigned(__builtin_ctz(bits));
}

unsigned choose(unsigned bits) {
  switch (settings.schedule) {
    case Schedule::forward: return unsigned(__builtin_ctz(bits));
    case Schedule::reverse: return 31 - unsigned(__builtin_clz(bits));
    default: return random_bit(bits);
  }
}

void start_block(dim3 size) {
  block.num_ended = block.num_at_barrier = block.runnable_warps = 0;
  block.warps.fill({});
  for (unsigned i = 0; i < block.num_threads; ++i) {
    Thread& thread = block.threads[i];
    thread.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.waits_at = Primitive::none;
    make_context(thread.context, block.stacks.top(i), thread_main);
    block.warps[i / warp_size].present |= 1u << i % warp_size;
  }
  for (unsigned warp = 0; warp < block.num_warps; ++warp) set_runnable(warp, block.warps[warp].present);
}

void run_block() {
  while (block.runnable_warps) {
    const unsigned warp = choose(block.runnable_warps);
    block.current = warp * warp_size + choose(block.warps[warp].runnable);
    Thread& thread = block.threads[block.current];
    threadIdx = thread.index;
    if (race_listener) race_listener->run(block.current);
    switch_context(block.scheduler, thread.context);
    if (!block.failure.empty()) throw Failure(block.failure);
  }
  if (block.num_ended < block.num_threads)
    throw Failure(where() + "deadlock, a barrier that not all of its threads reach: " + whereabouts() + ".");
}

// Why the driver would refuse the launch; "" if it would not.
std::string refusal(const void* kernel, dim3 grid, dim3 size, size_t shared_bytes) {
  std::ostringstream why;
  const uint64_t threads = uint64_t(size.x) * size.y * size.z;
  const auto found = allowed_shared.find(kernel);
  const size_t allowed = std::max(shared_without_attribute, found == allowed_shared.end() ? 0 : size_t(found->second));
  if (threads == 0 || threads > 1024 || size.z > 64)
    why << "a block of " << size.x << " x " << size.y << " x " << size.z << " threads, 1 to 1024 can be launched";
  else if (uint64_t(grid.x) * grid.y * grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    why << "a grid of " << grid.x << " x " << grid.y << " x " << grid.z << " blocks cannot be launched";
  else if (shared_bytes > std::min(allowed, settings.max_shared_bytes))
    why << shared_bytes << " bytes of dynamic shared memory, " << std::min(allowed, settings.max_shared_bytes)
        << " are allowed to this kernel";
  return why.str();
}

// Tells the race listener of a launch and of its end, which may be an exception.
struct Listening {
  Listening(void* arguments, size_t bytes) {
    if (race_listener) race_listener->begin_launch(arguments, bytes);
  }
  ~Listening() {
    if (race_listener) race_listener->end_launch();
  }
};

}  // namespace

unsigned lane() { return block.current % warp_size; }

void fail(const char* what, Place place) { fail("thread " + text(threadIdx) + " at " + text(place) + ": " + what); }

void fail_misaligned(size_t alignment) {
  fail("thread " + text(threadIdx) + ": a misaligned access of a vector of " + std::to_string(alignment) + " bytes");
}

void fail(const std::string& what) {
  block.failure = where() + what + ".";
  yield();
  __builtin_unreachable();
}

void block_barrier(Place place) {
  Thread& self = block.threads[block.current];
  self.waits_at = Primitive::syncthreads;
  self.place = place;
  block.warps[block.current / warp_size].at_barrier |= 1u << lane();
  wait();
  if (++block.num_at_barrier == block.num_threads) {
    for (unsigned i = 0; i < block.num_threads; ++i)
      if (block.threads[i].place.line != place.line || std::strcmp(block.threads[i].place.file, place.file) != 0) {
        block.failure = where() + "threads meet at different barriers: " + whereabouts() + ".";
        yield();
      }
    if (race_listener) race_listener->block_barrier();
    block.num_at_barrier = 0;
    for (unsigned warp = 0; warp < block.num_warps; ++warp) {
      block.warps[warp].at_barrier = 0;
      set_runnable(warp, block.warps[warp].present);
    }
  }
  yield();
  self.waits_at = Primitive::none;
}

namespace {

void compute_together(unsigned first, Place place) {
  Collective* lanes[warp_size];
  for (unsigned i = 0; i < warp_size; ++i) {
    lanes[i] = reinterpret_cast<Collective*>(block.threads[first + i].value);
    if (lanes[i]->compute != lanes[0]->compute) fail("the lanes of a warp are at different instructions", place);
  }
  lanes[0]->compute(lanes);
}

}  // namespace

uint64_t warp_primitive(Primitive primitive, unsigned mask, uint64_t value, unsigned source, Place place) {
  const unsigned first = block.current / warp_size * warp_size, self_lane = lane();
  Warp& warp = block.warps[block.current / warp_size];
  Thread& self = block.threads[block.current];
  if (!(mask >> self_lane & 1)) fail("the thread is not in the mask of its own warp primitive", place);
  if (mask & ~warp.present) fail("the mask names lanes that the warp does not have", place);
  if (mask & warp.ended) fail("the mask names lanes that have ended", place);
  if (primitive == Primitive::shuffle && !(mask >> source & 1)) fail("a shuffle reads a lane outside its mask", place);
  self.waits_at = primitive;
  self.place = place;
  self.mask = mask;
  self.source = source;
  self.value = value;
  wait();

  unsigned arrived = 0, votes = 0;
  for (unsigned i = 0; i < warp_size && first + i < block.num_threads; ++i) {
    const Thread& other = block.threads[first + i];
    if (!(mask >> i & 1) || other.waits_at != primitive || other.mask != mask) continue;
    arrived |= 1u << i;
    if (other.value) votes |= 1u << i;
  }
  if (arrived == mask) {
    if (primitive == Primitive::collective) compute_together(first, place);
    // The last lane to arrive computes the results of all, so that no value is overwritten before it is read.
    for (unsigned i = 0; i < warp_size; ++i)
      if (mask >> i & 1) {
        Thread& other = block.threads[first + i];
        other.result = primitive == Primitive::shuffle ? block.threads[first + other.source].value : votes;
      }
    for (unsigned i = 0; i < warp_size; ++i)
      if (mask >> i & 1) block.threads[first + i].waits_at = Primitive::none;
    set_runnable(block.current / warp_size, mask);
    if (race_listener && primitive == Primitive::syncwarp)  // the other primitives do not order memory accesses
      race_listener->warp_barrier(block.current / warp_size, mask);
  }
  yield();
  return self.result;
}

void warp_collective(Collective& own, Place place) {
  warp_primitive(Primitive::collective, 0xffffffffu, reinterpret_cast<uintptr_t>(&own), 0, place);
}

void fence() {
  if (race_listener) race_listener->fence();
}

void begin_atomic(const void* address) {
  if (race_listener) race_listener->begin_atomic(address);
}

void end_atomic() {
  if (race_listener) race_listener->end_atomic();
}

bool on_a_fiber_stack(const void* address) { return block.stacks.holds(address); }

std::string kernel_and_block() { return block.kernel + ", block " + text(blockIdx); }

bool allow_dynamic_shared(const void* kernel, int64_t bytes) {
  if (bytes < 0 || size_t(bytes) > settings.max_shared_bytes) return false;
  allowed_shared[kernel] = bytes;
  return true;
}

void run_grid(const char* name, const void* kernel, dim3 grid, dim3 size, size_t shared_bytes,
              void (*call)(const void* kernel, const void* arguments), void* arguments, size_t argument_bytes) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  refused = refusal(kernel, grid, size, shared_bytes);
  if (!refused.empty()) return;
  block.kernel = name_of(kernel, name);
  block.failure.clear();
  ++launches;
  blockDim = size;
  gridDim = grid;
  block.call = call;
  block.function = kernel;
  block.arguments = arguments;
  block.num_threads = size.x * size.y * size.z;
  block.num_warps = (block.num_threads + warp_size - 1) / warp_size;
  if (block.threads.size() < block.num_threads) block.threads.resize(block.num_threads);
  block.stacks.reserve(block.num_threads);
  block.random = settings.seed * 0x9E3779B97F4A7C15u + 88172645463325252u;

  const ThreadLocals locals = thread_locals();
  const Listening listening(arguments, argument_bytes);
  const uint64_t num_blocks = uint64_t(grid.x) * grid.y * grid.z;
  std::vector<uint64_t> order;
  if (settings.schedule == Schedule::shuffled) {
    for (uint64_t i = 0; i < num_blocks; ++i) order.push_back(i);
    for (uint64_t i = num_blocks; i > 1; --i) {
      block.random = block.random * 6364136223846793005u + 1442695040888963407u;
      std::swap(order[i - 1], order[(block.random >> 33) % i]);
    }
  }
  for (uint64_t i = 0; i < num_blocks; ++i) {
    const uint64_t linear = settings.schedule == Schedule::forward   ? i
                            : settings.schedule == Schedule::reverse ? num_blocks - 1 - i
                                                                     : order[i];
    blockIdx = {
        unsigned(linear % grid.x), unsigned(linear / grid.x % grid.y), unsigned(linear / (uint64_t(grid.x) * grid.y))};
    SharedMemory shared(locals, shared_bytes);
    block.stacks.clean(block.num_threads);
    start_block(size);
    if (race_listener) race_listener->begin_block(block.num_threads);
    run_block();
    if (race_listener) race_listener->end_block();
    if (!shared.intact())
      throw Failure(where() + "it wrote past its " + std::to_string(shared_bytes) + " bytes of dynamic shared memory.");
  }
}

}  // namespace cuda_on_cpu

extern "C" void cuda_on_cpu_schedule(int schedule, uint64_t seed) {
  cuda_on_cpu::settings.schedule = cuda_on_cpu::Schedule(schedule);
  cuda_on_cpu::settings.seed = seed;
}
extern "C" void cuda_on_cpu_max_shared_bytes(size_t bytes) { cuda_on_cpu::settings.max_shared_bytes = bytes; }
extern "C" int64_t cuda_on_cpu_launches() { return cuda_on_cpu::launches; }
