// dsn_window_logits for processors with AMX, beside the other kernels of AVX-512 (kernel.cpp). It is compiled with the
// flags of AVX-512, which every such processor has.
#include "window_layers_amx.h"

#ifdef DENDRITIC_BERT_AMX

#include "arguments.h"
#include "dsn_window_logits.h"

namespace dendritic_bert {

extern const Kernels kernels_avx512;

static void dsn_window_logits_amx(const WindowLogitsArguments& arguments) {
  if (arguments.windows.weight_type == WordType::float32) return kernels_avx512.dsn_window_logits(arguments);
  compute_window_logits(arguments, AmxLayers(arguments.windows));
}

extern void (*const window_kernel_amx)(const WindowLogitsArguments&);
void (*const window_kernel_amx)(const WindowLogitsArguments&) = dsn_window_logits_amx;

}  // namespace dendritic_bert

#endif
