// Finds data races whatever the schedule: two accesses of one piece of memory, one of them a write, not both atomic, by
// threads that nothing puts in an order: no barrier of their block, no __syncwarp (shuffles and ballots promise nothing
// about memory), and between blocks no atomics on the same word with a fence of the writer before and one of the reader
// behind. And accesses that have no business where they are: outside the array they came from, or misaligned.
//
// For this the kernels are compiled with -fsanitize=thread, but linked to the functions of races.cpp in the place of the
// sanitizer's own library, which knows nothing of blocks and warps.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

// What the executor tells about the threads; null where races.cpp is not linked.
struct RaceListener {
  void (*begin_launch)(void* arguments, size_t bytes);  // the kernel's, before any thread has them
  void (*begin_block)(unsigned threads);
  void (*run)(unsigned thread);  // whose the accesses are until the next call; may throw Failure
  void (*block_barrier)();       // all threads of the block have met
  void (*warp_barrier)(unsigned warp, unsigned lanes);
  void (*fence)();
  void (*begin_atomic)(const void* address);
  void (*end_atomic)();
  void (*end_block)();           // may throw Failure
  void (*end_launch)();
};
extern const RaceListener* race_listener;

}  // namespace cuda_on_cpu
