// Runs a CUDA kernel on the CPU: the blocks of a grid one after another, and each CUDA thread of a block as a fiber.
//
// A fiber runs until it ends or waits at a barrier, shuffle or ballot; the schedule chooses which one runs next.
// Between two barriers, the forward and the reverse schedule run any two threads of a block in opposite orders, so a
// result that depends on the order differs between them. What would hang on real hardware, or would be undefined there,
// ends the launch with a Failure that names the kernel, the block, and where its threads are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "arrays.h"

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace cuda_on_cpu {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Schedule : int { forward, reverse, shuffled };

struct Settings {
  Schedule schedule = Schedule::forward;
  uint64_t seed = 0;                     // of Schedule::shuffled
  size_t max_shared_bytes = 227 * 1024;  // that a block may ask for: 227 KiB on sm_90, 99 KiB on sm_86 and sm_120
};
extern Settings settings;
extern int64_t launches;     // kernels launched so far
extern std::string refused;  // why the last launch was refused; "" if it was not
extern const int mutant;     // the number of the mutation (mutations.py) that is switched on; 0 for none

// Where in the source a thread waits.
struct Place {
  const char* file;
  int line;
};

constexpr unsigned warp_size = 32;
constexpr size_t max_dynamic_shared = 227 * 1024, shared_without_attribute = 48 * 1024, canary_bytes = 4096;

// __shared__ is thread_local. This is the part whose size a launch sets; the bytes behind that size are guarded.
extern thread_local unsigned char dynamic_shared[max_dynamic_shared + canary_bytes];

enum class Primitive : int { none, syncthreads, syncwarp, shuffle, ballot, collective };

void block_barrier(Place place);
// Waits until every lane of `mask` is at the same primitive. `value` is what this lane brings, `source` the lane that a
// shuffle reads. Returns what that lane brought or, for a ballot, the lanes whose value is not 0.
uint64_t warp_primitive(Primitive primitive, unsigned mask, uint64_t value, unsigned source, Place place);
// An instruction whose results depend on what all lanes of a warp bring, as a product of matrices does. Each lane
// passes a `Collective` of its own; the last to arrive computes the results of all.
struct Collective {
  void (*compute)(Collective* const* lanes);
};
void warp_collective(Collective& own, Place place);
unsigned lane();
[[noreturn]] void fail(const char* what, Place place);
[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail_misaligned(size_t alignment);

// What races.h is told.
void fence();
void begin_atomic(const void* address);
void end_atomic();
bool on_a_fiber_stack(const void* address);
std::string kernel_and_block();

// Permission to launch `kernel` with more than 48 KiB of dynamic shared memory, as cudaFuncSetAttribute gives it.
bool allow_dynamic_shared(const void* kernel, int64_t bytes);

void run_grid(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
              void (*call)(const void* kernel, const void* arguments), void* arguments, size_t argument_bytes);

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Arguments... given) {
  using Tuple = std::tuple<std::remove_const_t<Parameters>...>;
  Tuple arguments(given...);
  const auto call = [](const void* kernel, const void* arguments) {
    std::apply(
        reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(kernel)), *static_cast<const Tuple*>(arguments));
  };
  run_grid(name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, call, &arguments, sizeof arguments);
}

}  // namespace cuda_on_cpu

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
