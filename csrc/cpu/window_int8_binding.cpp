// Registers the CPU kernel of dsn_window_logits_int8.
#include "../common/window_checks.h"
#include "calls.h"
#include "window_int8_arguments.h"

namespace dendritic_bert {
namespace {

// The integers of kernels/contract.py's QuantisedWindowedDsn that WindowTensors does not have.
struct Int8Tensors {
  const Tensor &input_scale, &window_weight, &output_shift, &output_scale, &gate_table, &pooled_scale,
      &activation_table;
  int64_t gate_bits;
};

template <class T>
const T* integers(TensorReader& reader, const char* name, const Tensor& tensor) {
  constexpr ScalarType type = sizeof(T) == 1 ? ScalarType::Char : sizeof(T) == 2 ? ScalarType::Short : ScalarType::Int;
  if (tensor.scalar_type() != type) fail(name, " is not int", 8 * sizeof(T), ": make it with kernels.prepare_int8.");
  return static_cast<const T*>(reader.data(name, tensor));
}

void expect_int8(const WindowSizes& sizes, const Int8Tensors& tensors, int64_t activation) {
  const int64_t channels = sizes.channels, matrices = sizes.num_layers - 1;
  expect_shape("input_scale", tensors.input_scale, {matrices, channels});
  expect_shape("window_weight", tensors.window_weight, {matrices, sizes.num_taps, channels / 4, channels, 4});
  expect_shape("output_shift", tensors.output_shift, {matrices, channels});
  expect_shape("output_scale", tensors.output_scale, {matrices, channels});
  expect_shape("gate_table", tensors.gate_table, {gate_table_size});
  expect_shape("pooled_scale", tensors.pooled_scale, {sizes.num_values + channels});
  const bool has_table = Activation(activation) != Activation::relu;
  expect_shape("activation_table", tensors.activation_table, {has_table ? activation_table_size : 0});
  if (tensors.gate_bits < gate_step_bits || tensors.gate_bits > 22)
    fail("gate_bits is ", tensors.gate_bits, ", expected ", gate_step_bits, " to 22.");
}

void expect_int8_rows(const Tokens& tokens) {
  for (int64_t row = 0; row < tokens.rows; ++row)
    if (tokens.row_length(row) > longest_int8_row)
      fail("row ", row, " has ", tokens.row_length(row), " tokens, and int8 windows take at most ", longest_int8_row,
           ": truncate the row.");
}

Tensor dsn_window_logits_int8(const Tensor& input_ids, const Tensor& values, const OptionalTensor& gate,
                              const Tensor& taps, const Tensor& window_bias, const Tensor& input_scale,
                              const Tensor& window_weight, const Tensor& output_shift, const Tensor& output_scale,
                              const Tensor& gate_weight, int64_t gate_bits, const Tensor& gate_table,
                              const Tensor& pooled_scale, const Tensor& weight, const Tensor& bias,
                              const Tensor& lateral, const Tensor& top, int64_t activation,
                              const Tensor& activation_table, const OptionalTensor& attention_mask,
                              const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids) {
  CallTokens call({input_ids, attention_mask, cu_seqlens, token_type_ids, std::nullopt}, 0);
  TensorReader& reader = call.reader;
  if (window_bias.dim() == 2 && window_bias.size(0) == 0)
    fail("window_bias has no layer, and int8 is for window layers: use dsn_window_logits.");
  const WindowSizes sizes = expect_windows(
      {values, gate, taps, window_bias, window_weight, gate_weight, weight, bias, lateral, top, activation});
  expect_int8(
      sizes,
      {input_scale, window_weight, output_shift, output_scale, gate_table, pooled_scale, activation_table, gate_bits},
      activation);
  expect_int8_rows(call.tokens);
  call.set_tables(sizes.vocab_size, sizes.num_types, call.longest_row());

  Int8Windows windows{};
  windows.shape.folded = sizes.folded;
  windows.shape.num_values = sizes.num_values;
  windows.shape.channels = sizes.channels;
  windows.shape.radius = sizes.num_taps / 2;
  windows.shape.num_layers = sizes.num_layers;
  windows.values = integers<int16_t>(reader, "values", values);
  windows.gate = gate ? integers<int32_t>(reader, "gate", *gate) : nullptr;
  windows.taps = integers<int16_t>(reader, "taps", taps);
  windows.bias = integers<int32_t>(reader, "window_bias", window_bias);
  windows.input_scale = integers<int16_t>(reader, "input_scale", input_scale);
  windows.weight = integers<int8_t>(reader, "window_weight", window_weight);
  windows.output_shift = integers<int32_t>(reader, "output_shift", output_shift);
  windows.output_scale = integers<int16_t>(reader, "output_scale", output_scale);
  windows.gate_weight = integers<int16_t>(reader, "gate_weight", gate_weight);
  windows.gate_table = integers<int32_t>(reader, "gate_table", gate_table);
  windows.pooled_scale = reader.float_data("pooled_scale", pooled_scale);
  windows.activation_table = reader.float_data("activation_table", activation_table);
  windows.gate_bits = int(gate_bits);
  const Head head{reader.float_data("weight", weight),
                  reader.float_data("bias", bias),
                  nullptr,
                  reader.float_data("lateral", lateral),
                  reader.float_data("top", top),
                  sizes.head.num_labels,
                  sizes.head.num_dendrites,
                  Activation(activation)};
  const Tensor logits = new_tensor(bias, {call.tokens.rows, sizes.head.num_labels});
  chosen_int8_kernel().dsn_window_logits_int8({call.tokens, windows, head, data_of<float>(logits), parallel_for});
  call.raise_bad_index();
  return logits;
}

}  // namespace
}  // namespace dendritic_bert

STABLE_TORCH_LIBRARY_IMPL(dendritic_bert, CPU, library) {
  library.impl("dsn_window_logits_int8_cpu", TORCH_BOX(&dendritic_bert::dsn_window_logits_int8));
}
