// Registers the CPU kernels of window_pool and of its backward.
#include "calls.h"
#include "segments.h"

namespace dendritic_bert {
namespace {

// The arguments of the operators that are no tokens, as kernels/ops.py describes them.
struct WindowPoolTensors {
  const Tensor &word, &token_type;
  const OptionalTensor &ln_weight, &ln_bias;
  const Tensor &input_weight, &weight, &bias;
  const OptionalTensor &gate_weight, &gate_bias;
  double eps, p_embed, p_window, p_pool;
  const OptionalTensor& seed;
};

void expect_dropout(const WindowPoolTensors& tensors) {
  const auto expect = [](const char* name, double p) {
    if (!(p >= 0 && p < 1)) fail(name, " is ", p, ", expected 0 <= ", name, " < 1.");
  };
  expect("p_embed", tensors.p_embed);
  expect("p_window", tensors.p_window);
  expect("p_pool", tensors.p_pool);
  if (tensors.p_embed == 0 && tensors.p_window == 0 && tensors.p_pool == 0) return;
  if (!tensors.seed || tensors.seed->numel() != 1 || tensors.seed->scalar_type() != ScalarType::Long)
    fail("seed is missing or not one int64, which dropout needs.");
}

// kernels/validation.py states the same rules.
void expect_window_pool(const WindowPoolTensors& tensors) {
  const int64_t hidden_size = hidden_size_of("word_embeddings", tensors.word);
  word_type_of("word_embeddings", tensors.word, false);
  const Tensor &input_weight = tensors.input_weight, &bias = tensors.bias, &token_type = tensors.token_type;
  if (input_weight.dim() != 3 || input_weight.size(0) % 2 == 0 || bias.dim() != 2)
    fail("window_input_weight has shape ", shape_of(input_weight), " and window_bias ", shape_of(bias),
         ", expected [R, H, M] with an odd R, and [J, M].");
  if (tensors.ln_weight.has_value() != tensors.ln_bias.has_value())
    fail("one of ln_weight and ln_bias is missing: pass both, or None for both.");
  if (tensors.gate_weight.has_value() != tensors.gate_bias.has_value())
    fail("one of gate_weight and gate_bias is missing: pass both, or None for both.");
  const int64_t num_taps = input_weight.size(0), dendrites = input_weight.size(2), num_layers = bias.size(0);
  if ((num_layers == 0) != (dendrites == 0))
    fail("window_bias has shape ", shape_of(bias), ": pass no layer of no dendrite, [0, 0], or at least one of each.");
  if (token_type.dim() != 2 || token_type.size(0) == 0 || token_type.size(1) != hidden_size)
    fail("token_type_embeddings has shape ", shape_of(token_type), ", expected [*, ", hidden_size, "].");
  if (tensors.ln_weight) expect_shape("ln_weight", *tensors.ln_weight, {hidden_size});
  if (tensors.ln_bias) expect_shape("ln_bias", *tensors.ln_bias, {hidden_size});
  expect_shape("window_input_weight", input_weight, {num_taps, hidden_size, dendrites});
  expect_shape("window_bias", bias, {num_layers, dendrites});
  expect_shape("window_weight", tensors.weight, {std::max<int64_t>(0, num_layers - 1), num_taps, dendrites, dendrites});
  if (tensors.gate_weight) expect_shape("gate_weight", *tensors.gate_weight, {hidden_size + dendrites});
  if (tensors.gate_bias) expect_shape("gate_bias", *tensors.gate_bias, {tensors.word.size(0)});
  const auto expect_dtype = [&](const char* name, const Tensor& tensor) {
    if (tensor.scalar_type() != tensors.word.scalar_type())
      fail(name, " has another dtype than word_embeddings: convert one of them.");
  };
  expect_dtype("token_type_embeddings", token_type);
  if (tensors.ln_weight) expect_dtype("ln_weight", *tensors.ln_weight);
  if (tensors.ln_bias) expect_dtype("ln_bias", *tensors.ln_bias);
  expect_dtype("window_input_weight", input_weight);
  expect_dtype("window_weight", tensors.weight);
  expect_dtype("window_bias", bias);
  if (tensors.gate_weight) expect_dtype("gate_weight", *tensors.gate_weight);
  if (tensors.gate_bias) expect_dtype("gate_bias", *tensors.gate_bias);
  expect_dropout(tensors);
}

// What the forward and the backward share. Parameters of half precision are converted to float32.
struct WindowPoolCall {
  CallTokens call;
  WindowPoolArguments arguments{};

  WindowPoolCall(const TokenTensors& token_tensors, const WindowPoolTensors& tensors) : call(token_tensors, 0) {
    expect_window_pool(tensors);
    call.set_tables(tensors.word.size(0), tensors.token_type.size(0), call.longest_row());
    TensorReader& reader = call.reader;
    const auto optional = [&](const char* name, const OptionalTensor& tensor) {
      return tensor ? reader.as_float_data(name, *tensor) : nullptr;
    };
    arguments.tokens = call.tokens;
    arguments.word = reader.as_float_data("word_embeddings", tensors.word);
    arguments.token_type = reader.as_float_data("token_type_embeddings", tensors.token_type);
    arguments.ln_weight = optional("ln_weight", tensors.ln_weight);
    arguments.ln_bias = optional("ln_bias", tensors.ln_bias);
    arguments.input_weight = reader.as_float_data("window_input_weight", tensors.input_weight);
    arguments.weight = reader.as_float_data("window_weight", tensors.weight);
    arguments.bias = reader.as_float_data("window_bias", tensors.bias);
    arguments.gate_weight = optional("gate_weight", tensors.gate_weight);
    arguments.gate_bias = optional("gate_bias", tensors.gate_bias);
    arguments.hidden_size = tensors.word.size(1);
    arguments.dendrites = tensors.bias.size(1);
    arguments.radius = tensors.input_weight.size(0) / 2;
    arguments.num_layers = tensors.bias.size(0);
    arguments.eps = float(tensors.eps);
    arguments.p_embed = tensors.p_embed;
    arguments.p_window = tensors.p_window;
    arguments.p_pool = tensors.p_pool;
    arguments.seed = tensors.seed ? uint64_t(*data_of<const int64_t>(*tensors.seed)) : 0;
    arguments.parallel_for = parallel_for;
  }
};

Tensor window_pool(const Tensor& input_ids, const Tensor& word_embeddings, const Tensor& token_type_embeddings,
                   const OptionalTensor& ln_weight, const OptionalTensor& ln_bias, const Tensor& window_input_weight,
                   const Tensor& window_weight, const Tensor& window_bias, const OptionalTensor& gate_weight,
                   const OptionalTensor& gate_bias, const OptionalTensor& attention_mask,
                   const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids, double eps, double p_embed,
                   double p_window, double p_pool, const OptionalTensor& seed) {
  const WindowPoolCall window_call(
      {input_ids, attention_mask, cu_seqlens, token_type_ids, std::nullopt},
      {word_embeddings, token_type_embeddings, ln_weight, ln_bias, window_input_weight, window_weight, window_bias,
       gate_weight, gate_bias, eps, p_embed, p_window, p_pool, seed});
  const WindowPoolArguments& arguments = window_call.arguments;
  const Tensor pooled =
      new_tensor(word_embeddings, {arguments.tokens.rows, arguments.hidden_size + arguments.dendrites});
  chosen_kernels().window_pool(arguments, data_of<float>(pooled));
  window_call.call.raise_bad_index();
  return as_type(pooled, word_embeddings.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> window_pool_backward(
    const Tensor& grad_pooled, const Tensor& input_ids, const Tensor& word_embeddings,
    const Tensor& token_type_embeddings, const OptionalTensor& ln_weight, const OptionalTensor& ln_bias,
    const Tensor& window_input_weight, const Tensor& window_weight, const Tensor& window_bias,
    const OptionalTensor& gate_weight, const OptionalTensor& gate_bias, const OptionalTensor& attention_mask,
    const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids, double eps, double p_embed, double p_window,
    double p_pool, const OptionalTensor& seed) {
  WindowPoolCall window_call(
      {input_ids, attention_mask, cu_seqlens, token_type_ids, std::nullopt},
      {word_embeddings, token_type_embeddings, ln_weight, ln_bias, window_input_weight, window_weight, window_bias,
       gate_weight, gate_bias, eps, p_embed, p_window, p_pool, seed});
  const WindowPoolArguments& arguments = window_call.arguments;
  const Tokens& tokens = arguments.tokens;
  const int64_t hidden_size = arguments.hidden_size, channels = hidden_size + arguments.dendrites;
  if (tokens.total > INT32_MAX)
    fail("input_ids holds ", tokens.total, " tokens, and backward takes at most 2^31 - 1: split the batch.");
  expect_shape("grad_pooled", grad_pooled, {tokens.rows, channels});
  if (grad_pooled.scalar_type() != word_embeddings.scalar_type())
    fail("grad_pooled has another dtype than word_embeddings: convert it.");

  const auto float_like = [&](const Tensor& tensor) {
    std::vector<int64_t> shape(tensor.dim());
    for (size_t i = 0; i < shape.size(); ++i) shape[i] = tensor.size(int64_t(i));
    return new_tensor(word_embeddings, shape);
  };
  const auto optional_like = [&](const OptionalTensor& tensor) {
    return tensor ? float_like(*tensor) : new_tensor(word_embeddings, {0});
  };
  Tensor d_word = float_like(word_embeddings), d_gate_bias = optional_like(gate_bias);
  const Tensor d_token_type = float_like(token_type_embeddings), d_ln_weight = optional_like(ln_weight),
               d_ln_bias = optional_like(ln_bias), d_input_weight = float_like(window_input_weight),
               d_weight = float_like(window_weight), d_bias = float_like(window_bias),
               d_gate_weight = optional_like(gate_weight);
  advise_huge_pages(d_word);
  torch::stable::zero_(d_word);
  torch::stable::zero_(d_gate_bias);
  const Tensor d_token = new_tensor(word_embeddings, {tokens.total, pad_channels(hidden_size)});
  const Tensor d_logit = new_tensor(word_embeddings, {tokens.total});
  chosen_kernels().window_pool_backward({arguments, window_call.call.reader.as_float_data("grad_pooled", grad_pooled),
                                         data_of<float>(d_token), data_of<float>(d_logit), data_of<float>(d_token_type),
                                         data_of<float>(d_ln_weight), data_of<float>(d_ln_bias),
                                         data_of<float>(d_input_weight), data_of<float>(d_weight),
                                         data_of<float>(d_bias), data_of<float>(d_gate_weight)});
  window_call.call.raise_bad_index();

  const Segments segments = sort_into_segments(tokens);
  chosen_kernels().window_pool_words({segments.tokens.data(), segments.starts.data(), segments.ids.data(),
                                      int64_t(segments.ids.size()), hidden_size, data_of<const float>(d_token),
                                      data_of<const float>(d_logit), data_of<float>(d_word),
                                      gate_bias ? data_of<float>(d_gate_bias) : nullptr, parallel_for});
  const ScalarType type = word_embeddings.scalar_type();
  return {as_type(d_word, type),    as_type(d_token_type, type),   as_type(d_ln_weight, type),
          as_type(d_ln_bias, type), as_type(d_input_weight, type), as_type(d_weight, type),
          as_type(d_bias, type),    as_type(d_gate_weight, type),  as_type(d_gate_bias, type)};
}

}  // namespace
}  // namespace dendritic_bert

STABLE_TORCH_LIBRARY_IMPL(dendritic_bert, CPU, library) {
  library.impl("window_pool_cpu", TORCH_BOX(&dendritic_bert::window_pool));
  library.impl("window_pool_backward_cpu", TORCH_BOX(&dendritic_bert::window_pool_backward));
}
