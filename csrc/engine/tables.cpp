#include "tables.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dendritic_bert::engine {
namespace {

// Products that enter one sum of an int8 window layer; MOST_PRODUCTS of kernels/prepare_int8.py. No window is that
// wide.
constexpr int64_t most_products = 1 << 16;
constexpr int64_t most_rows = std::numeric_limits<int32_t>::max();  // of a table, as the kernels address them

// The number of floats of a folded row; padded_outputs of kernels/contract.py.
int64_t padded_outputs(int64_t outputs) { return outputs <= 4 ? 4 : outputs <= 8 ? 8 : (outputs + 15) / 16 * 16; }

template <class T>
bool are_within(const T* values, int64_t size, int64_t lowest, int64_t highest) {
  // No early exit, so that the loop becomes vector code.
  bool are = true;
  for (int64_t i = 0; i < size; ++i) are &= values[i] >= lowest && values[i] <= highest;
  return are;
}

// Whether the four products that share an int16 fit it (prepare_int8.py): the weights are `size` bytes, of which every
// 4 * channels belong to four inputs, [channels, 4].
bool groups_fit(const int8_t* weights, int64_t size, int64_t channels) {
  constexpr int largest = 128;
  const int64_t next_four = 4 * channels;
  bool do_fit = true;
  for (int64_t eight = 0; eight < size; eight += 2 * next_four)
    for (int64_t i = eight; i < eight + next_four; i += 2) {
      int positive = 0, negative = 0;
      for (const int weight : {weights[i], weights[i + 1], weights[i + next_four], weights[i + next_four + 1]}) {
        positive += std::max(weight, 0);
        negative -= std::min(weight, 0);
      }
      do_fit &= positive <= largest && negative <= largest;
    }
  return do_fit;
}

// The parts of a head that every form has. Its outputs are (1 + N) * C.
int64_t read_head(ModelFile& file, Head& head) {
  const Array<float> top = file.array<float>("top", 2);
  head.num_dendrites = top.shape[0];
  head.num_labels = top.shape[1];
  file.expect(head.num_labels >= 1 && head.num_dendrites <= most_rows / head.num_labels - 1, "it has no label");
  if (!file.is_valid()) return 0;
  const int64_t outputs = (1 + head.num_dendrites) * head.num_labels;
  head.top = top.data;
  head.lateral = file.array_of<float>("lateral", {head.num_dendrites, head.num_dendrites, head.num_labels});
  head.bias = file.array_of<float>("bias", {outputs});
  head.activation = Activation(file.integer("activation", 0, 3));
  return outputs;
}

void read_full_width(ModelFile& file, Tables& tables) {
  const int64_t outputs = read_head(file, tables.head);
  const AnyArray word = file.any_array("word", 2);
  const Array<float> context = file.array<float>("context", 3);
  switch (word.type) {
    case ElementType::float32: tables.full_width.word_type = WordType::float32; break;
    case ElementType::bfloat16: tables.full_width.word_type = WordType::bfloat16; break;
    case ElementType::float16: tables.full_width.word_type = WordType::float16; break;
    case ElementType::int8: tables.full_width.word_type = WordType::int8; break;
    default: file.fail("its array word has another element type");
  }
  const int64_t hidden_size = word.shape[1];
  file.expect(hidden_size >= 1, "its array word has no column");
  file.expect_shape("context", context.shape, {context.shape[0], context.shape[1], hidden_size});
  Table& table = tables.full_width;
  table.word = word.data;
  if (word.type == ElementType::int8) table.word_scale = file.array_of<float>("word_scale", {word.shape[0]});
  table.context = context.data;
  table.context_stride = table.hidden_size = hidden_size;
  table.eps = float(file.number("eps"));
  file.expect(table.eps >= 0, "its eps is negative");
  table.centred = true;
  tables.head.weight = file.array_of<float>("weight", {outputs, hidden_size});
  tables.head.beta_bias = file.array_of<float>("beta_bias", {outputs});
  tables.pooling = Pooling(file.integer("pooling", 0, 2));
  tables.vocab_size = word.shape[0];
  tables.num_types = context.shape[0];
  tables.num_positions = tables.positions_stride = context.shape[1];
}

void read_folded(ModelFile& file, Tables& tables) {
  const int64_t outputs = read_head(file, tables.head);
  const Array<float> rstd = file.array<float>("rstd", 4);
  Folded& folded = tables.folded;
  folded.stride = padded_outputs(outputs);
  tables.num_types = rstd.shape[0];
  tables.vocab_size = rstd.shape[2];
  tables.positions_stride = rstd.shape[1] * position_tile;
  file.expect_shape("rstd", rstd.shape, {tables.num_types, rstd.shape[1], tables.vocab_size, position_tile});
  folded.rstd = rstd.data;
  folded.word = file.array_of<float>("word", {tables.vocab_size, folded.stride});
  folded.context = file.array_of<float>("context", {tables.num_types, tables.positions_stride, folded.stride});
  tables.head.beta_bias = file.array_of<float>("beta_bias", {outputs});
  tables.pooling = Pooling(file.integer("pooling", 0, 2));
  tables.num_positions = file.integer("num_positions", 0, tables.positions_stride);
}

// What the windows in float and in int8 share: their sizes, and the head.
template <class Value>
void read_window_shape(ModelFile& file, Tables& tables) {
  const int64_t outputs = read_head(file, tables.head);
  const Array<Value> values = file.array<Value>("values", 3), taps = file.array<Value>("taps", 4);
  const AnyArray bias = file.any_array("window_bias", 2);
  const Array<float> weight = file.array<float>("weight", 2);
  Windows& shape = tables.windows.shape;
  const int64_t num_taps = taps.shape[2];
  tables.num_types = values.shape[0];
  tables.vocab_size = values.shape[1];
  tables.num_positions = most_rows;
  shape.num_values = values.shape[2];
  shape.channels = taps.shape[3];
  shape.radius = num_taps / 2;
  shape.num_layers = bias.shape[0];
  shape.folded = weight.shape[1] == shape.channels;
  file.expect(num_taps % 2 == 1 && num_taps * std::max<int64_t>(1, shape.channels) <= most_products &&
                  shape.channels % 16 == 0 && (shape.num_layers == 0) == (shape.channels == 0),
              "the sizes of its taps and of window_bias do not belong together");
  file.expect_shape("taps", taps.shape, {tables.num_types, tables.vocab_size, num_taps, shape.channels});
  file.expect_shape("window_bias", bias.shape, {shape.num_layers, shape.channels});
  file.expect(!shape.folded || shape.num_values == padded_outputs(outputs),
              "the sizes of its values and of its weight do not belong together");
  file.expect_shape("weight", weight.shape, {outputs, shape.channels + (shape.folded ? 0 : shape.num_values)});
  tables.head.weight = weight.data;
}

void read_windows(ModelFile& file, Tables& tables) {
  read_window_shape<float>(file, tables);
  Windows& windows = tables.windows.shape;
  const int64_t num_taps = 2 * windows.radius + 1, matrices = std::max<int64_t>(0, windows.num_layers - 1);
  windows.values = file.array<float>("values", 3).data;
  windows.taps = file.array<float>("taps", 4).data;
  windows.bias = file.array<float>("window_bias", 2).data;
  if (file.has("gate")) windows.gate = file.array_of<float>("gate", {tables.num_types, tables.vocab_size});
  windows.gate_weight = file.array_of<float>("gate_weight", {windows.channels});
  const AnyArray weight = file.any_array("window_weight", 4);
  file.expect(weight.type == ElementType::float32 || weight.type == ElementType::bfloat16,
              "its array window_weight has another element type");
  file.expect_shape("window_weight", weight.shape, {matrices, num_taps, windows.channels, windows.channels});
  windows.weight_type = weight.type == ElementType::float32 ? WordType::float32 : WordType::bfloat16;
  windows.weight = weight.data;
}

// kernels/prepare_int8.py says why no sum overflows where numbers lie in these ranges.
void read_windows_int8(ModelFile& file, Tables& tables) {
  read_window_shape<int16_t>(file, tables);
  Int8Windows& windows = tables.windows;
  const Windows& shape = windows.shape;
  file.expect(shape.num_layers >= 1, "it has no window layer");
  if (!file.is_valid()) return;
  const int64_t channels = shape.channels, matrices = shape.num_layers - 1, num_taps = 2 * shape.radius + 1;
  const auto expect_within = [&](const char* name, const auto* values, int64_t size, int64_t low, int64_t high) {
    if (file.is_valid() && !are_within(values, size, low, high))
      file.fail("its array " + std::string(name) + " holds a number that is out of range");
  };
  windows.values = file.array<int16_t>("values", 3).data;
  windows.taps = file.array<int16_t>("taps", 4).data;
  windows.bias = file.array<int32_t>("window_bias", 2).data;
  expect_within("window_bias", windows.bias, shape.num_layers * channels, -(1 << 30), 1 << 30);
  windows.input_scale = file.array_of<int16_t>("input_scale", {matrices, channels});
  expect_within("input_scale", windows.input_scale, matrices * channels, 0, 32767);
  windows.weight = file.array_of<int8_t>("window_weight", {matrices, num_taps, channels / 4, channels, 4});
  const int64_t num_weights = matrices * num_taps * channels * channels;
  expect_within("window_weight", windows.weight, num_weights, -64, 64);
  file.expect(!file.is_valid() || groups_fit(windows.weight, num_weights, channels),
              "the weights of its windows make sums that are out of range, as those of an earlier version do: export "
              "the model again");
  windows.output_shift = file.array_of<int32_t>("output_shift", {matrices, channels});
  expect_within("output_shift", windows.output_shift, matrices * channels, 0, 29);
  windows.output_scale = file.array_of<int16_t>("output_scale", {matrices, channels});
  expect_within("output_scale", windows.output_scale, matrices * channels, 0, 32767);
  windows.gate_weight = file.array_of<int16_t>("gate_weight", {channels});
  windows.gate_bits = int(file.integer("gate_bits", gate_step_bits, 22));
  windows.gate_table = file.array_of<int32_t>("gate_table", {gate_table_size});
  expect_within("gate_table", windows.gate_table, gate_table_size, 1, 1 << 28);
  windows.pooled_scale = file.array_of<float>("pooled_scale", {shape.num_values + channels});
  const bool has_table = tables.head.activation != Activation::relu;
  windows.activation_table = file.array_of<float>("activation_table", {has_table ? activation_table_size : int64_t(0)});
  tables.num_positions = longest_int8_row;
  if (!file.is_valid()) return;
  int64_t gate_weight_sum = 0;
  for (int64_t o = 0; o < channels; ++o) gate_weight_sum += std::abs(int32_t(windows.gate_weight[o]));
  file.expect(gate_weight_sum <= 1 << 15, "its array gate_weight holds numbers that are out of range");
  if (!file.has("gate")) return;
  windows.gate = file.array_of<int32_t>("gate", {tables.num_types, tables.vocab_size});
  expect_within("gate", windows.gate, tables.num_types * tables.vocab_size, -(1 << 29), 1 << 29);
}

// The kernels take their threads from whoever calls them; the engine's threads each call a kernel by themselves.
void run_here(int64_t begin, int64_t end, int64_t, RangeBody body, void* context) { body(begin, end, context); }

}  // namespace

Tables read_tables(ModelFile& file) {
  Tables tables;
  tables.form = Form(file.integer("form", 0, 3));
  switch (tables.form) {
    case Form::full_width: read_full_width(file, tables); break;
    case Form::folded: read_folded(file, tables); break;
    case Form::windows: read_windows(file, tables); break;
    case Form::windows_int8: read_windows_int8(file, tables); break;
  }
  file.expect(tables.vocab_size >= 1 && tables.num_types >= 1 && tables.num_types <= most_rows / tables.vocab_size &&
                  tables.positions_stride <= most_rows / std::max<int64_t>(1, tables.num_types),
              "it has no word, no token type or too many of them");
  return tables;
}

void compute_logits(const Tables& tables, const TokenRows& rows, float* logits) {
  int64_t bad_index = INT64_MAX;
  Tokens tokens;
  tokens.ids = {rows.ids, false};
  tokens.token_types = {rows.token_types, false};
  tokens.cu_seqlens = {rows.cu_seqlens, true};
  tokens.rows = rows.rows;
  tokens.total = rows.cu_seqlens[rows.rows];
  tokens.pooling = tables.pooling;
  tokens.vocab_size = tables.vocab_size;
  tokens.num_types = tables.num_types;
  tokens.num_positions = tables.num_positions;
  tokens.positions_stride = tables.positions_stride;
  tokens.bad_index = &bad_index;
  switch (tables.form) {
    case Form::full_width:
      return chosen_kernels().dsn_logits({tokens, tables.full_width, tables.head, logits, 1, run_here});
    case Form::folded:
      return chosen_kernels().dsn_logits_folded({tokens, tables.folded, tables.head, logits, 1, run_here});
    case Form::windows:
      return chosen_kernels().dsn_window_logits({tokens, tables.windows.shape, tables.head, logits, run_here});
    case Form::windows_int8:
      return chosen_int8_kernel().dsn_window_logits_int8({tokens, tables.windows, tables.head, logits, run_here});
  }
}

}  // namespace dendritic_bert::engine
