// Registers the CPU kernels of the ops that kernels/ops.py defines.
#ifndef Py_LIMITED_API  // newer versions of torch's build extension define it themselves
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include "../common/window_checks.h"
#include "calls.h"
#include "segments.h"
#include "window_int8_arguments.h"

namespace dendritic_bert {
namespace {

// A full-width head, or a folded one, which has no weight.
Head read_head(TensorReader& reader, const HeadSizes& sizes, const float* weight, const Tensor& bias,
               const Tensor& beta_bias, const Tensor& lateral, const Tensor& top, int64_t activation) {
  return {weight,
          reader.float_data("bias", bias),
          reader.float_data("beta_bias", beta_bias),
          reader.float_data("lateral", lateral),
          reader.float_data("top", top),
          sizes.num_labels,
          sizes.num_dendrites,
          Activation(activation)};
}

Tensor dsn_logits(const Tensor& input_ids, const Tensor& word, const OptionalTensor& word_scale, const Tensor& context,
                  double eps, const Tensor& weight, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                  const Tensor& top, int64_t activation, const OptionalTensor& attention_mask,
                  const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                  const OptionalTensor& position_ids, int64_t pooling) {
  CallTokens call({input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids}, pooling);
  TensorReader& reader = call.reader;
  const HeadSizes sizes =
      expect_dsn({word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation});
  call.set_tables(word.size(0), context.size(0), context.size(1));

  Table table;
  table.word_type = word_type_of("word", word, true);
  if (table.word_type == WordType::float8_e4m3)
    fail("word is float8_e4m3fn, which the cpu backend does not read: use another backend.");
  table.word = reader.data("word", word);
  table.word_scale = word_scale ? reader.float_data("word_scale", *word_scale) : nullptr;
  table.context = reader.float_data("context", context);
  table.context_stride = table.hidden_size = word.size(1);
  table.eps = float(eps);
  table.centred = true;
  const float* const weight_data = reader.float_data("weight", weight);
  const Head head = read_head(reader, sizes, weight_data, bias, beta_bias, lateral, top, activation);
  const Tensor logits = new_tensor(weight, {call.tokens.rows, sizes.num_labels});
  chosen_kernels().dsn_logits(
      {call.tokens, table, head, data_of<float>(logits), int(torch::stable::get_num_threads()), parallel_for});
  call.raise_bad_index();
  return logits;
}

Tensor dsn_logits_folded(const Tensor& input_ids, const Tensor& rstd, const Tensor& word, const Tensor& context,
                         int64_t num_positions, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                         const Tensor& top, int64_t activation, const OptionalTensor& attention_mask,
                         const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                         const OptionalTensor& position_ids, int64_t pooling) {
  CallTokens call({input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids}, pooling);
  TensorReader& reader = call.reader;
  const HeadSizes sizes = head_sizes_of(top);
  expect_head(sizes, bias, beta_bias, lateral, activation);
  const int64_t stride = padded_outputs(sizes.outputs);
  if (word.dim() != 2 || word.size(1) != stride)
    fail("word has shape ", shape_of(word), ", expected [V, ", stride, "].");
  if (rstd.dim() != 4 || rstd.size(0) == 0 || rstd.size(2) != word.size(0) || rstd.size(3) != position_tile)
    fail("rstd has shape ", shape_of(rstd), ", expected [K, P / ", position_tile, ", ", word.size(0), ", ",
         position_tile, "] with K >= 1.");
  const int64_t positions_stride = rstd.size(1) * position_tile;
  expect_shape("context", context, {rstd.size(0), positions_stride, stride});
  if (num_positions < 0 || num_positions > positions_stride)
    fail("num_positions is ", num_positions, ", expected 0 to ", positions_stride, ".");
  call.set_tables(word.size(0), rstd.size(0), num_positions);
  call.tokens.positions_stride = positions_stride;

  const Folded folded{
      reader.float_data("rstd", rstd), reader.float_data("word", word), reader.float_data("context", context), stride};
  const Head head = read_head(reader, sizes, nullptr, bias, beta_bias, lateral, top, activation);
  const Tensor logits = new_tensor(bias, {call.tokens.rows, sizes.num_labels});
  chosen_kernels().dsn_logits_folded(
      {call.tokens, folded, head, data_of<float>(logits), int(torch::stable::get_num_threads()), parallel_for});
  call.raise_bad_index();
  return logits;
}

// A model with windows has no positions: its rows may have any length.
void set_window_tables(CallTokens& call, const WindowSizes& sizes) {
  call.set_tables(sizes.vocab_size, sizes.num_types, call.longest_row());
}

// The tables of dsn_window_logits but for the weights of the layers.
Windows read_windows(TensorReader& reader, const WindowTensors& tensors, const WindowSizes& sizes) {
  Windows windows{};
  windows.values = reader.float_data("values", tensors.values);
  windows.gate = tensors.gate ? reader.float_data("gate", *tensors.gate) : nullptr;
  windows.taps = reader.float_data("taps", tensors.taps);
  windows.bias = reader.float_data("window_bias", tensors.window_bias);
  windows.gate_weight = reader.float_data("gate_weight", tensors.gate_weight);
  windows.folded = sizes.folded;
  windows.num_values = sizes.num_values;
  windows.channels = sizes.channels;
  windows.radius = sizes.num_taps / 2;
  windows.num_layers = sizes.num_layers;
  return windows;
}

Tensor dsn_window_logits(const Tensor& input_ids, const Tensor& values, const OptionalTensor& gate, const Tensor& taps,
                         const Tensor& window_bias, const Tensor& window_weight, const Tensor& gate_weight,
                         const Tensor& weight, const Tensor& bias, const Tensor& lateral, const Tensor& top,
                         int64_t activation, const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                         const OptionalTensor& token_type_ids) {
  CallTokens call({input_ids, attention_mask, cu_seqlens, token_type_ids, std::nullopt}, 0);
  TensorReader& reader = call.reader;
  const WindowTensors tensors{
      values, gate, taps, window_bias, window_weight, gate_weight, weight, bias, lateral, top, activation};
  const WindowSizes sizes = expect_windows(tensors);
  set_window_tables(call, sizes);
  Windows windows = read_windows(reader, tensors, sizes);
  windows.weight_type = expect_window_weight(sizes, window_weight);
  windows.weight = reader.data("window_weight", window_weight);
  const Head head{reader.float_data("weight", weight),
                  reader.float_data("bias", bias),
                  nullptr,
                  reader.float_data("lateral", lateral),
                  reader.float_data("top", top),
                  sizes.head.num_labels,
                  sizes.head.num_dendrites,
                  Activation(activation)};
  const Tensor logits = new_tensor(bias, {call.tokens.rows, sizes.head.num_labels});
  chosen_kernels().dsn_window_logits({call.tokens, windows, head, data_of<float>(logits), parallel_for});
  call.raise_bad_index();
  return logits;
}

std::tuple<Tensor, Tensor, Tensor> embed_pool(const Tensor& input_ids, const Tensor& word_embeddings,
                                              const Tensor& position_embeddings, const Tensor& token_type_embeddings,
                                              const Tensor& ln_weight, const Tensor& ln_bias,
                                              const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                                              const OptionalTensor& token_type_ids, const OptionalTensor& position_ids,
                                              double eps, int64_t pooling, double p_embed, double p_pool,
                                              const OptionalTensor& seed, int64_t) {
  TrainingCall training(
      {input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids},
      {word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias, eps, p_embed, p_pool, seed},
      pooling);
  CallTokens& call = training.call;
  const int64_t rows = call.tokens.rows, hidden_size = training.table.hidden_size;
  Tensor pooled = new_tensor(word_embeddings, {rows, hidden_size});
  const Tensor pooled_hat = new_tensor(word_embeddings, {rows, hidden_size});
  Tensor rstd = new_tensor(word_embeddings, {call.tokens.total});
  if (call.tokens.mask_bytes) torch::stable::zero_(rstd);  // the kernel writes those of valid tokens
  chosen_kernels().embed_pool({call.tokens, training.table, training.dropout, training.ln_weight, training.ln_bias,
                               data_of<float>(pooled), data_of<float>(pooled_hat), data_of<float>(rstd),
                               int(torch::stable::get_num_threads()), parallel_for});
  call.raise_bad_index();
  return {as_type(pooled, training.parameter_type), pooled_hat, rstd};
}

// Sums d_context [K, P, H] into the gradients of the position table, which is zero, and of the token types. The
// gradient of a token type is a sum over every token of the batch, so it is taken in double; in float its error would
// be ten times that of torch's pairwise sum.
void sum_context_gradient(const TrainingCall& call, const float* d_context, float* d_position, float* d_token_type) {
  const int64_t hidden_size = call.table.hidden_size;
  std::vector<double> type_sum(static_cast<size_t>(hidden_size));
  for (int64_t k = 0; k < call.num_types; ++k) {
    std::fill(type_sum.begin(), type_sum.end(), 0.0);
    for (int64_t p = 0; p < call.num_positions; ++p, d_context += hidden_size)
      for (int64_t h = 0; h < hidden_size; ++h) {
        d_position[p * hidden_size + h] += d_context[h];
        type_sum[size_t(h)] += double(d_context[h]);
      }
    for (int64_t h = 0; h < hidden_size; ++h) d_token_type[k * hidden_size + h] = float(type_sum[size_t(h)]);
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> embed_pool_backward(
    const Tensor& grad_pooled, const Tensor& pooled_hat, const Tensor& rstd, const Tensor& input_ids,
    const Tensor& word_embeddings, const Tensor& position_embeddings, const Tensor& token_type_embeddings,
    const Tensor& ln_weight, const Tensor& ln_bias, const OptionalTensor& attention_mask,
    const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids, const OptionalTensor& position_ids,
    double eps, int64_t pooling, double p_embed, double p_pool, const OptionalTensor& seed, int64_t word_grad) {
  TrainingCall training(
      {input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids},
      {word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias, eps, p_embed, p_pool, seed},
      pooling);
  const Tokens& tokens = training.call.tokens;
  TensorReader& reader = training.call.reader;
  if (tokens.total > INT32_MAX)
    fail("input_ids holds ", tokens.total, " tokens, and backward takes at most 2^31 - 1: split the batch.");
  expect_gradient(grad_pooled, pooled_hat, tokens.rows, word_embeddings);
  expect_shape("rstd", rstd, {tokens.total});
  const int64_t hidden_size = training.table.hidden_size;

  Tensor d_position = new_tensor(word_embeddings, {position_embeddings.size(0), hidden_size});
  Tensor d_token_type = new_tensor(word_embeddings, {token_type_embeddings.size(0), hidden_size});
  Tensor d_ln_weight = new_tensor(word_embeddings, {hidden_size});
  Tensor d_ln_bias = new_tensor(word_embeddings, {hidden_size});
  torch::stable::zero_(d_position);
  torch::stable::zero_(d_token_type);
  std::vector<TokenPlace> places(static_cast<size_t>(tokens.total));
  std::vector<float> row_gradient(size_t(tokens.rows * training.table.context_stride));
  const BackwardArguments arguments{tokens,
                                    training.table,
                                    training.dropout,
                                    training.ln_weight,
                                    reader.as_float_data("grad_pooled", grad_pooled),
                                    reader.float_data("pooled_hat", pooled_hat),
                                    reader.float_data("rstd", rstd),
                                    training.num_types * training.num_positions,
                                    places.data(),
                                    row_gradient.data(),
                                    data_of<float>(d_ln_weight),
                                    data_of<float>(d_ln_bias),
                                    parallel_for};
  chosen_kernels().backward_rows(arguments);
  training.call.raise_bad_index();

  const Segments segments = sort_into_segments(tokens);
  const WordGradient word_gradient{int(word_grad)};
  const int64_t num_segments = int64_t(segments.ids.size());
  const int64_t num_ids = word_gradient == WordGradient::sparse ? num_segments : 0;
  const Tensor d_word = new_tensor(
      word_embeddings, {word_gradient == WordGradient::dense ? word_embeddings.size(0) : num_ids, hidden_size},
      training.parameter_type);
  if (word_gradient == WordGradient::dense) advise_huge_pages(d_word);
  const Tensor d_word_ids = new_tensor(word_embeddings, {num_ids}, ScalarType::Long);
  std::copy_n(segments.ids.begin(), num_ids, data_of<int64_t>(d_word_ids));
  std::vector<float> d_context(size_t(arguments.num_contexts * hidden_size));
  chosen_kernels().backward_segments({arguments, segments.tokens.data(), segments.starts.data(), segments.ids.data(),
                                      num_segments, word_gradient, data_of<void>(d_word), d_context.data()});
  sum_context_gradient(training, d_context.data(), data_of<float>(d_position), data_of<float>(d_token_type));
  const ScalarType type = training.parameter_type;
  return {d_word,
          d_word_ids,
          as_type(d_position, type),
          as_type(d_token_type, type),
          as_type(d_ln_weight, type),
          as_type(d_ln_bias, type)};
}

PyObject* instruction_set(PyObject*, PyObject*) { return PyUnicode_FromString(chosen_kernels().name); }

PyObject* int8_instruction_set(PyObject*, PyObject*) { return PyUnicode_FromString(chosen_int8_kernel().name); }

PyObject* limit_int8_instruction_set(PyObject*, PyObject* name) {
  const char* const at_most = PyUnicode_AsUTF8AndSize(name, nullptr);
  if (!at_most) return nullptr;
  limit_int8_kernel(at_most);
  Py_INCREF(Py_None);
  return Py_None;
}

PyMethodDef methods[] = {
    {"limit_int8_instruction_set", limit_int8_instruction_set, METH_O, "Use none above the named one; for tests."},
    {"int8_instruction_set", int8_instruction_set, METH_NOARGS, "The one whose kernel of int8 windows was chosen."},
    {"instruction_set", instruction_set, METH_NOARGS, "The instruction set whose kernels were chosen."},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace dendritic_bert

STABLE_TORCH_LIBRARY_IMPL(dendritic_bert, CPU, library) {
  library.impl("dsn_logits_cpu", TORCH_BOX(&dendritic_bert::dsn_logits));
  library.impl("dsn_logits_folded_cpu", TORCH_BOX(&dendritic_bert::dsn_logits_folded));
  library.impl("dsn_window_logits_cpu", TORCH_BOX(&dendritic_bert::dsn_window_logits));
  library.impl("embed_pool_cpu", TORCH_BOX(&dendritic_bert::embed_pool));
  library.impl("embed_pool_backward_cpu", TORCH_BOX(&dendritic_bert::embed_pool_backward));
}

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&dendritic_bert::module); }
