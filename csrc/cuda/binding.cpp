// The CUDA kernels of the ops that kernels/ops.py defines, and of the two that kernels/backends/cuda.py defines for the
// backward pass.
#ifndef Py_LIMITED_API  // newer versions of torch's build extension define it themselves
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include <tuple>

#include "calls.h"
#include "launchers.h"

#ifdef CUDA_ON_CPU  // the same code on host tensors: tests/support/cuda_on_cpu
#define DISPATCH_KEY CPU
#else
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#define DISPATCH_KEY CUDA
#endif

namespace dendritic_bert {
namespace {

// Where a call runs: on the device of its tensors, which is made the current one, in torch's current stream on it.
#ifdef CUDA_ON_CPU
struct OnDevice {
  cuda_on_cpu::CallArrays arrays;
  void* stream = nullptr;
  explicit OnDevice(const Tensor&) {}
};
#else
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;
  explicit OnDevice(const Tensor& tensor) : guard(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  }
};
#endif

void expect_gpu([[maybe_unused]] const Tensor& input_ids) {
#ifndef CUDA_ON_CPU
  if (!input_ids.is_cuda()) fail("input_ids is not on a GPU, where other tensors are: move it.");
#endif
}

// Asks the device whether cu_seqlens is valid, for kernels that write a result for each token; only the device learns
// the answer.
class CuSeqlensCheck {
 public:
  CuSeqlensCheck(Tokens& tokens, const Tensor& like, int hidden_size, float* rstd, void* stream) {
    if (!tokens.cu_seqlens.data) return;
    memory_ = {new_tensor(like, {1}, ScalarType::Int)};
    int* const is_valid = data_of<int>(memory_[0]);
    launch_check_cu_seqlens(
        {tokens.cu_seqlens, tokens.rows, tokens.total, is_valid, rstd}, tokens, hidden_size, stream);
    tokens.cu_seqlens_valid = is_valid;
  }

 private:
  std::vector<Tensor> memory_;
};

// The memory that the blocks of a split row share, from torch's allocator.
class SplitMemory {
 public:
  SplitMemory(Plan& plan, const Tensor& like, const Tokens& tokens, int hidden_size) {
    if (plan.splits == 1) return;
    memory_ = {
        new_tensor(like, {partial_size(plan, tokens, hidden_size)}), new_tensor(like, {tokens.rows}, ScalarType::Int)};
    torch::stable::zero_(memory_[1]);
    plan.partial = data_of<float>(memory_[0]);
    plan.arrived = data_of<int>(memory_[1]);
  }

 private:
  std::vector<Tensor> memory_;
};

Tensor dsn_logits(const Tensor& input_ids, const Tensor& word, const OptionalTensor& word_scale, const Tensor& context,
                  double eps, const Tensor& weight, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                  const Tensor& top, int64_t activation, const OptionalTensor& attention_mask,
                  const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                  const OptionalTensor& position_ids, int64_t pooling) {
  expect_gpu(input_ids);
  const OnDevice device(input_ids);
  LogitsCall call({input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids},
                  {word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation}, pooling);
  LogitsArguments& arguments = call.arguments;
  const int hidden_size = arguments.table.hidden_size;
  arguments.plan = plan_rows(arguments.tokens, hidden_size, weight.size(0));
  const SplitMemory memory(arguments.plan, weight, arguments.tokens, hidden_size);
  const Tensor logits = new_tensor(weight, {arguments.tokens.rows, arguments.head.num_labels});
  arguments.logits = data_of<float>(logits);
  launch_dsn_logits(arguments, device.stream);
  return logits;
}

Tensor dsn_token_logits(const Tensor& input_ids, const Tensor& word, const OptionalTensor& word_scale,
                        const Tensor& context, double eps, const Tensor& weight, const Tensor& bias,
                        const Tensor& beta_bias, const Tensor& lateral, const Tensor& top, int64_t activation,
                        const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                        const OptionalTensor& token_type_ids, const OptionalTensor& position_ids) {
  expect_gpu(input_ids);
  const OnDevice device(input_ids);
  LogitsCall call({input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids},
                  {word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation},
                  int64_t(Pooling::mean_masked));
  LogitsArguments& arguments = call.arguments;
  const int hidden_size = arguments.table.hidden_size, num_labels = arguments.head.num_labels;
  arguments.plan = plan_rows(arguments.tokens, hidden_size);
  const Tensor logits = cu_seqlens ? new_tensor(weight, {input_ids.size(0), num_labels})
                                   : new_tensor(weight, {input_ids.size(0), input_ids.size(1), num_labels});
  arguments.logits = data_of<float>(logits);
  const CuSeqlensCheck check(arguments.tokens, weight, hidden_size, nullptr, device.stream);
  launch_dsn_token_logits(arguments, device.stream);
  return logits;
}

Tensor dsn_window_logits(const Tensor& input_ids, const Tensor& values, const OptionalTensor& gate, const Tensor& taps,
                         const Tensor& window_bias, const Tensor& window_weight, const Tensor& gate_weight,
                         const Tensor& weight, const Tensor& bias, const Tensor& lateral, const Tensor& top,
                         int64_t activation, const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                         const OptionalTensor& token_type_ids) {
  expect_gpu(input_ids);
  const OnDevice device(input_ids);
  WindowCall call({input_ids, attention_mask, cu_seqlens, token_type_ids, std::nullopt},
                  {values, gate, taps, window_bias, window_weight, gate_weight, weight, bias, lateral, top, activation},
                  window_weight);
  WindowArguments& arguments = call.arguments;
  const SplitMemory memory(arguments.plan, bias, arguments.tokens, arguments.windows.columns());
  const Tensor logits = new_tensor(bias, {arguments.tokens.rows, arguments.head.num_labels});
  arguments.logits = data_of<float>(logits);
  launch_dsn_window_logits(arguments, device.stream);
  return logits;
}

// Makes the context table of a training call, in memory from torch's allocator.
Tensor make_context(TrainingCall& call, const Tensor& like, void* stream) {
  ContextArguments& context = call.context;
  const Tensor table = new_tensor(like, {context.num_types, context.num_positions, context.hidden_size});
  call.table.context = context.context = data_of<float>(table);
  launch_context_table(context, call.tokens, stream);
  return table;
}

std::tuple<Tensor, Tensor, Tensor> embed_pool(const Tensor& input_ids, const Tensor& word_embeddings,
                                              const Tensor& position_embeddings, const Tensor& token_type_embeddings,
                                              const Tensor& ln_weight, const Tensor& ln_bias,
                                              const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                                              const OptionalTensor& token_type_ids, const OptionalTensor& position_ids,
                                              double eps, int64_t pooling, double p_embed, double p_pool,
                                              const OptionalTensor& seed, int64_t) {
  expect_gpu(input_ids);
  const OnDevice device(input_ids);
  TrainingCall call(
      {input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids},
      {word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias, eps, p_embed, p_pool, seed},
      pooling);
  Tokens& tokens = call.tokens;
  const int hidden_size = call.table.hidden_size;
  const Tensor context = make_context(call, word_embeddings, device.stream);
  Plan plan = plan_rows(tokens, hidden_size);
  const SplitMemory memory(plan, word_embeddings, tokens, hidden_size);
  const Tensor pooled = new_tensor(word_embeddings, {tokens.rows, hidden_size}, word_embeddings.scalar_type());
  const Tensor pooled_hat = new_tensor(word_embeddings, {tokens.rows, hidden_size});
  const Tensor rstd = new_tensor(word_embeddings, {tokens.total});
  const CuSeqlensCheck check(tokens, word_embeddings, hidden_size, data_of<float>(rstd), device.stream);
  launch_embed_pool({tokens, call.table, call.dropout, plan, call.ln_weight, call.ln_bias, data_of<void>(pooled),
                     data_of<float>(pooled_hat), data_of<float>(rstd)},
                    device.stream);
  return {pooled, pooled_hat, rstd};
}

// The results of embed_pool_token_gradients; TokenGradients of kernels/backends/cuda.py describes them.
struct TokenGradientTensors {
  Tensor row_gradient, weight_terms, bias_terms, token_gradient, word_keys, context_keys, context, d_word, d_context;

  auto in_the_order_of_the_schema() const {
    return std::tuple(
        row_gradient, weight_terms, bias_terms, token_gradient, word_keys, context_keys, context, d_word, d_context);
  }
};

auto embed_pool_token_gradients(const Tensor& grad_pooled, const Tensor& pooled_hat, const Tensor& input_ids,
                                const Tensor& word_embeddings, const Tensor& position_embeddings,
                                const Tensor& token_type_embeddings, const Tensor& ln_weight, const Tensor& ln_bias,
                                const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                                const OptionalTensor& token_type_ids, const OptionalTensor& position_ids, double eps,
                                int64_t pooling, double p_embed, double p_pool, const OptionalTensor& seed,
                                bool atomics, bool atomic_word) {
  expect_gpu(input_ids);
  const OnDevice device(input_ids);
  TrainingCall call(
      {input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids},
      {word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias, eps, p_embed, p_pool, seed},
      pooling);
  Tokens& tokens = call.tokens;
  const int64_t hidden_size = call.table.hidden_size;
  expect_gradient(grad_pooled, pooled_hat, tokens.rows, word_embeddings);

  const bool d_word_by_atomics = atomics && atomic_word, segment_sums_follow = !d_word_by_atomics;
  const auto make = [&](bool needed, std::vector<int64_t> shape, ScalarType type = ScalarType::Float) {
    if (!needed) shape[0] = 0;
    return new_tensor(word_embeddings, shape, type);
  };
  const auto make_zeros = [&](bool needed, std::vector<int64_t> shape) {
    Tensor tensor = make(needed, shape);
    if (needed) torch::stable::zero_(tensor);
    return tensor;
  };
  constexpr int64_t token_gradient_floats = sizeof(TokenGradient) / sizeof(float);
  TokenGradientTensors result;
  result.context = make_context(call, word_embeddings, device.stream);
  result.row_gradient = make(segment_sums_follow, {tokens.rows, hidden_size});
  result.weight_terms = make(true, {tokens.rows, hidden_size});
  result.bias_terms = make(true, {tokens.rows, hidden_size});
  result.token_gradient = make(segment_sums_follow, {tokens.total, token_gradient_floats});
  result.word_keys = make(segment_sums_follow, {tokens.total}, ScalarType::Int);
  result.context_keys = make(segment_sums_follow, {tokens.total}, ScalarType::Int);
  result.d_word = make_zeros(d_word_by_atomics, {word_embeddings.size(0), hidden_size});
  result.d_context = make_zeros(atomics, {call.context.num_types, call.context.num_positions, hidden_size});

  BackwardArguments arguments{};
  const CuSeqlensCheck check(tokens, word_embeddings, call.table.hidden_size, nullptr, device.stream);
  arguments.tokens = tokens;
  arguments.table = call.table;
  arguments.dropout = call.dropout;
  arguments.plan = plan_rows(tokens, call.table.hidden_size);
  arguments.plan.splits = 1;  // the blocks of a split row would have to share its terms
  arguments.ln_weight = call.ln_weight;
  arguments.grad_pooled = call.reader.data("grad_pooled", grad_pooled);
  arguments.pooled_hat = call.reader.float_data("pooled_hat", pooled_hat);
  arguments.weight_terms = data_of<float>(result.weight_terms);
  arguments.bias_terms = data_of<float>(result.bias_terms);
  if (segment_sums_follow) {
    arguments.row_gradient = data_of<float>(result.row_gradient);
    arguments.token_gradient = data_of<TokenGradient>(result.token_gradient);
    arguments.word_keys = data_of<int32_t>(result.word_keys);
    arguments.context_keys = data_of<int32_t>(result.context_keys);
  }
  if (d_word_by_atomics) arguments.d_word = data_of<float>(result.d_word);
  if (atomics) arguments.d_context = data_of<float>(result.d_context);
  launch_token_gradients(arguments, device.stream);
  return result.in_the_order_of_the_schema();
}

// Adds up token gradients by key into `sums` [*, H], whose other rows are left alone.
void embed_pool_segment_sums(const Tensor& keys, const Tensor& order, const OptionalTensor& target,
                             const Tensor& row_gradient, const Tensor& token_gradient, const Tensor& word_embeddings,
                             const Tensor& context, double p_embed, const OptionalTensor& seed, int64_t num_keys,
                             Tensor sums) {
  const OnDevice device(keys);
  TensorReader reader(keys);
  const int64_t num_tokens = keys.numel(), hidden_size = word_embeddings.size(1);
  const Tensor partial = new_tensor(row_gradient, {2 * chunks_of(num_tokens), hidden_size});
  SegmentArguments arguments{};
  arguments.table.hidden_size = int(hidden_size);
  arguments.table.word_type = word_type_of("word_embeddings", word_embeddings, false);
  arguments.table.word = reader.data("word_embeddings", word_embeddings);
  arguments.table.context = data_of<const float>(context);
  if (p_embed > 0) arguments.dropout = dropout_of(p_embed, 0, data_of<const int64_t>(*seed));
  arguments.row_gradient = data_of<const float>(row_gradient);
  arguments.token_gradient = data_of<const TokenGradient>(token_gradient);
  arguments.keys = data_of<const int32_t>(keys);
  arguments.order = data_of<const int64_t>(order);
  arguments.target = target ? data_of<const int64_t>(*target) : nullptr;
  arguments.num_tokens = num_tokens;
  arguments.num_keys = num_keys;
  arguments.partial = data_of<float>(partial);
  arguments.type = word_type_of("sums", sums, false);
  arguments.sums = data_of<void>(sums);
  Tokens tokens;  // for the error of a launch that fails
  tokens.rows = row_gradient.size(0);
  tokens.total = num_tokens;
  launch_segment_sums(arguments, tokens, device.stream);
}

#ifndef CUDA_ON_CPU
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
#endif

}  // namespace
}  // namespace dendritic_bert

STABLE_TORCH_LIBRARY_IMPL(dendritic_bert, DISPATCH_KEY, library) {
  library.impl("dsn_logits_cuda", TORCH_BOX(&dendritic_bert::dsn_logits));
  library.impl("dsn_token_logits_cuda", TORCH_BOX(&dendritic_bert::dsn_token_logits));
  library.impl("dsn_window_logits_cuda", TORCH_BOX(&dendritic_bert::dsn_window_logits));
  library.impl("embed_pool_cuda", TORCH_BOX(&dendritic_bert::embed_pool));
  library.impl("embed_pool_token_gradients_cuda", TORCH_BOX(&dendritic_bert::embed_pool_token_gradients));
  library.impl("embed_pool_segment_sums_cuda", TORCH_BOX(&dendritic_bert::embed_pool_segment_sums));
}

#ifndef CUDA_ON_CPU
PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&dendritic_bert::module); }
#endif
