// Memory that is there.
#pragma once

#include <cstdlib>
#include <new>

namespace dendritic_bert {
namespace {  // a copy for each instruction set that its users are compiled for

// What an allocation gave, if that is not null: else std::bad_alloc, or the end of the program where there are no
// exceptions, as in WebAssembly, which would write to address 0 without a word.
inline void* allocated(void* memory) {
  if (memory) return memory;
#ifdef __cpp_exceptions
  throw std::bad_alloc();
#else
  std::abort();
#endif
}

}  // namespace
}  // namespace dendritic_bert
