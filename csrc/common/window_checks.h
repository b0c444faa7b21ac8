// The rules about the tables of dsn_window_logits, which hold in both extensions; kernels/validation.py states them
// too.
#pragma once

#include "call_checks.h"

namespace dendritic_bert {

struct WindowTensors {
  const Tensor& values;
  const OptionalTensor& gate;
  const Tensor &taps, &window_bias, &window_weight, &gate_weight, &weight, &bias, &lateral, &top;
  int64_t activation;
};

// K token types, V words, R taps, J layers of M channels; a token adds `num_values` values to the pooled row beside u.
struct WindowSizes {
  int64_t num_types, vocab_size, num_taps, num_layers, channels, num_values;
  bool folded;  // whether the values are outputs of the head
  HeadSizes head;
};

// The number of floats of a folded row; padded_outputs of kernels/contract.py.
inline int64_t padded_outputs(int64_t outputs) {
  return outputs <= 4 ? 4 : outputs <= 8 ? 8 : (outputs + 15) / 16 * 16;
}

// Checks everything but the weights of the layers, whose shape and dtype belong to their arithmetic.
inline WindowSizes expect_windows(const WindowTensors& tensors) {
  const Tensor &values = tensors.values, &taps = tensors.taps, &weight = tensors.weight;
  if (values.dim() != 3 || values.size(0) == 0)
    fail("values has shape ", shape_of(values), ", expected [K, V, D] with K >= 1.");
  if (taps.dim() != 4 || taps.size(2) % 2 == 0 || taps.size(3) % 16 != 0)
    fail("taps has shape ", shape_of(taps), ", expected [K, V, R, M] with an odd R and an M that is a multiple of 16.");
  if (tensors.window_bias.dim() != 2)
    fail("window_bias has shape ", shape_of(tensors.window_bias), ", expected [J, M].");
  if (weight.dim() != 2) fail("weight has shape ", shape_of(weight), ", expected [(1 + N) * C, M] or [.., D + M].");
  WindowSizes sizes{values.size(0), values.size(1), taps.size(2), tensors.window_bias.size(0),
                    taps.size(3),   values.size(2), false,        head_sizes_of(tensors.top)};
  sizes.folded = weight.size(1) == sizes.channels;
  const int64_t outputs = sizes.head.outputs;
  if (sizes.folded && sizes.num_values != padded_outputs(outputs))
    fail("values has shape ", shape_of(values), ", expected [K, V, ", padded_outputs(outputs),
         "], since weight has no column for it.");
  if ((sizes.num_layers == 0) != (sizes.channels == 0))
    fail("window_bias has shape ", shape_of(tensors.window_bias), ", taps ", shape_of(taps),
         ": expected both without dendrites, or neither.");
  if (tensors.gate) expect_shape("gate", *tensors.gate, {sizes.num_types, sizes.vocab_size});
  expect_shape("taps", taps, {sizes.num_types, sizes.vocab_size, sizes.num_taps, sizes.channels});
  expect_shape("window_bias", tensors.window_bias, {sizes.num_layers, sizes.channels});
  expect_shape("gate_weight", tensors.gate_weight, {sizes.channels});
  expect_shape("weight", weight, {outputs, sizes.channels + (sizes.folded ? 0 : sizes.num_values)});
  expect_shape("bias", tensors.bias, {outputs});
  expect_shape("lateral", tensors.lateral, {sizes.head.num_dendrites, sizes.head.num_dendrites, sizes.head.num_labels});
  if (tensors.activation < 0 || tensors.activation > 3)
    fail("activation is ", tensors.activation, ", expected 0 to 3.");
  return sizes;
}

// The matrices of layers 1 to J - 1 in float32 or bfloat16.
inline WordType expect_window_weight(const WindowSizes& sizes, const Tensor& window_weight) {
  const int64_t matrices = std::max<int64_t>(0, sizes.num_layers - 1);
  expect_shape("window_weight", window_weight, {matrices, sizes.num_taps, sizes.channels, sizes.channels});
  switch (window_weight.scalar_type()) {
    case ScalarType::Float: return WordType::float32;
    case ScalarType::BFloat16: return WordType::bfloat16;
    default: fail("window_weight is none of float32, bfloat16: convert it.");
  }
}

}  // namespace dendritic_bert
