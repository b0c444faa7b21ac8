// The kernel of dsn_window_logits_int8 for one instruction set. As kernel.cpp, this file is compiled once for each, and
// for those that multiply int8 besides.
#include "window_int8.h"

#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

namespace dendritic_bert {

extern const Int8Kernel CONCATENATE(int8_kernel_, INSTRUCTION_SET);
const Int8Kernel CONCATENATE(int8_kernel_, INSTRUCTION_SET) = {STRING(INSTRUCTION_SET), dsn_window_logits_int8};

}  // namespace dendritic_bert
