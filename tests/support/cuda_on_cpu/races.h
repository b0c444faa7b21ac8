// Finds data races, whatever the schedule: two accesses to the same memory, at least one of them a write and not both
// atomic, by threads that nothing orders. Threads of a block are ordered by a barrier or a __syncwarp (shuffles and
// ballots promise nothing about memory); threads of two blocks by atomics on the same word, with a fence of the writer
// before its atomic and one of the reader behind. Finds accesses that are misaligned or outside every array of the
// call, too.
//
// For this the kernels are compiled with -fsanitize=thread, but linked to the functions of races.cpp in place of the
// sanitizer's own library, which knows nothing of blocks and warps.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

// What the executor tells about the threads; null if races.cpp is not linked.
struct RaceListener {
  void (*begin_launch)(void* arguments, size_t bytes);  // the kernel's arguments, before any thread has them
  void (*begin_block)(unsigned threads);
  void (*run)(unsigned thread);  // until the next call, accesses are by this thread; may throw Failure
  void (*block_barrier)();       // all threads of the block have met
  void (*warp_barrier)(unsigned warp, unsigned lanes);
  void (*fence)();
  void (*begin_atomic)(const void* address);
  void (*end_atomic)();
  void (*end_block)();  // may throw Failure
  void (*end_launch)();
};
extern const RaceListener* race_listener;

}  // namespace cuda_on_cpu
