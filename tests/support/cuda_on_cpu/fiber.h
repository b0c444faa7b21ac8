// Contexts of execution, each with a stack of its own. On x86-64 a switch saves the six registers that a callee must
// preserve, which takes 9 ns. Elsewhere swapcontext serves, which makes a system call for the signal mask and takes
// 300.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if !defined(__x86_64__) || defined(CUDA_ON_CPU_UCONTEXT)
#define CUDA_ON_CPU_SWAPCONTEXT
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

// Each stack has 256 KiB of address space and begins with a page that nothing may touch; only pages in use become
// memory.
class Stacks {
 public:
  ~Stacks() { release(); }
  char* top(unsigned i) const { return memory_ + size_t(i + 1) * bytes; }

  void reserve(unsigned count) {
    if (count <= count_) return;
    release();
    void* memory =
        mmap(nullptr, bytes * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    count_ = count;
    for (unsigned i = 0; i < count; ++i) mprotect(memory_ + i * bytes, size_t(sysconf(_SC_PAGESIZE)), PROT_NONE);
  }

  // If the last block failed, its threads stopped in the middle of functions, whose locals AddressSanitizer still
  // guards.
  void clean([[maybe_unused]] unsigned count) const {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(memory_, bytes * count);
#endif
  }

  bool holds(const void* address) const { return address >= memory_ && address < memory_ + bytes * count_; }

  static constexpr size_t bytes = 256 * 1024;

 private:
  void release() {
    if (memory_) munmap(memory_, bytes * count_);
    memory_ = nullptr;
  }
  char* memory_ = nullptr;
  unsigned count_ = 0;
};

#if !defined(CUDA_ON_CPU_SWAPCONTEXT)

struct Context {
  void* stack_pointer = nullptr;
};

extern "C" void cuda_on_cpu_switch(void** save, void* load);
asm(R"(
.text
.hidden cuda_on_cpu_switch
.globl cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");

inline void switch_context(Context& from, Context& to) { cuda_on_cpu_switch(&from.stack_pointer, to.stack_pointer); }

inline void make_context(Context& context, char* stack_top, void (*entry)()) {
  void** sp = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_top) & ~uintptr_t(63));
  *--sp = nullptr;  // the return address of entry, which never returns: leaves the stack as a call would
  *--sp = reinterpret_cast<void*>(entry);
  for (int registers = 0; registers < 6; ++registers) *--sp = nullptr;
  context.stack_pointer = sp;
}

#else

struct Context {
  ucontext_t context;
};

inline void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

inline void make_context(Context& context, char* stack_top, void (*entry)()) {
  const size_t guard = size_t(sysconf(_SC_PAGESIZE));
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack_top - Stacks::bytes + guard;
  context.context.uc_stack.ss_size = Stacks::bytes - guard;
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
}

#endif

}  // namespace cuda_on_cpu
