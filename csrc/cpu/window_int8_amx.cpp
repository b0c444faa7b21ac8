// dsn_window_logits_int8 for processors with AMX. It is compiled with the flags of AVX512-VNNI, which every such
// processor has.
#include "window_int8_layers_amx.h"

#ifdef DENDRITIC_BERT_AMX

#include "window_int8.h"

namespace dendritic_bert {

extern const Int8Kernel int8_kernel_avx512_vnni;

static void dsn_window_logits_int8_amx(const Int8LogitsArguments& arguments) {
  const Windows& shape = arguments.windows.shape;
  if (shape.radius == 1 && shape.channels == int8_block)
    return compute_int8_window_logits<AmxInt8Layers<PairedTaps>>(arguments);
  if (shape.radius == 1 && shape.channels % tile_row_bytes == 0)
    return compute_int8_window_logits<AmxInt8Layers<SingleTaps>>(arguments);
  int8_kernel_avx512_vnni.dsn_window_logits_int8(arguments);
}

extern const Int8Kernel int8_kernel_amx;
const Int8Kernel int8_kernel_amx = {"amx", dsn_window_logits_int8_amx};

}  // namespace dendritic_bert

#endif
