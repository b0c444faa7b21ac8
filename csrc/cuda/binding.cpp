// The CUDA kernels of the ops that kernels/ops.py defines, and of those that kernels/backends/cuda.py defines for the
// backward.
#ifndef Py_LIMITED_API  // newer versions of torch's build extension define it themselves
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#include "launchers.h"
#include "tensors.h"

using namespace dendritic_bert;

#ifdef CUDA_ON_CPU  // the same code on host tensors: tests/support/cuda_on_cpu
#define DISPATCH_KEY CPU
struct OnDevice {
  cuda_on_cpu::CallArrays arrays;  // of this call
  void* stream = nullptr;
  explicit OnDevice(const Tensor&) {}
};
#else
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#define DISPATCH_KEY CUDA
// The device of a tensor, made the current one, and torch's current stream on it.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;
  explicit OnDevice(const Tensor& tensor) : guard(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  }
};
#endif

namespace {

Tensor new_tensor(const Tensor& like, std::vector<int64_t> shape, ScalarType type = ScalarType::Float) {
  return torch::stable::new_empty(like, shape, type);
}

void expect_gpu([[maybe_unused]] const Tensor& input_ids) {
#ifndef CUDA_ON_CPU
  if (!input_ids.is_cuda()) fail("input_ids is not on a GPU, where other tensors are: move it.");
#endif
}

// Whether cu_seqlens is sound, for kernels that write a result for each token; only the device ever knows.
struct Soundness {
  std::vector<Tensor> keep;
  Soundness(Tokens& tokens, const Tensor& like, int hidden_size, float* rstd, void* stream) {
    if (!tokens.cu_seqlens.data) return;
    keep = {new_tensor(like, {1}, ScalarType::Int)};
    int* const flag = data_of<int>(keep[0]);
    launch_check_cu_seqlens({tokens.cu_seqlens, tokens.rows, tokens.total, flag, rstd}, tokens, hidden_size, stream);
    tokens.cu_seqlens_valid = flag;
  }
};

// What the blocks of a split row need, from torch's allocator.
struct SplitMemory {
  std::vector<Tensor> keep;
  SplitMemory(Plan& plan, const Tensor& like, const Tokens& tokens, int hidden_size) {
    if (plan.splits == 1) return;
    keep = {new_tensor(like, {partial_size(plan, tokens, hidden_size)}), new_tensor(like, {tokens.rows}, ScalarType::Int)};
    torch::stable::zero_(keep[1]);
    plan.partial = data_of<float>(keep[0]);
    plan.arrived = data_of<int>(keep[1]);
  }
};

Tensor dsn_logits(const Tensor& input_ids, const Tensor& word, const OptionalTensor& word_scale, const Tensor& context_table,
                  double eps, const Tensor& weight, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                  const Tensor& top, int64_t activation, const OptionalTensor& attention_mask,
                  const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                  const OptionalTensor& position_ids, int64_t pooling) {
  expect_gpu(input_ids);
  const OnDevice on(input_ids);
  TokenTensors tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling);
  const PreparedTensors prepared(tokens, word, word_scale, context_table, eps, weight, bias, beta_bias, lateral, top,
                                 activation);
  Plan plan = plan_rows(tokens.tokens, prepared.table.hidden_size);
  const SplitMemory memory(plan, weight, tokens.tokens, prepared.table.hidden_size);
  const Tensor result = new_tensor(weight, {tokens.tokens.rows, prepared.head.num_labels});
  launch_dsn_logits({tokens.tokens, prepared.table, prepared.head, plan, data_of<float>(result)}, on.stream);
  return result;
}

Tensor dsn_token_logits(const Tensor& input_ids, const Tensor& word, const OptionalTensor& word_scale,
                        const Tensor& context_table, double eps, const Tensor& weight, const Tensor& bias,
                        const Tensor& beta_bias, const Tensor& lateral, const Tensor& top, int64_t activation,
                        const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
                        const OptionalTensor& token_type_ids, const OptionalTensor& position_ids) {
  expect_gpu(input_ids);
  const OnDevice on(input_ids);
  TokenTensors tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, int64_t(Pooling::mean_masked));
  const PreparedTensors prepared(tokens, word, word_scale, context_table, eps, weight, bias, beta_bias, lateral, top,
                                 activation);
  const int64_t labels = prepared.head.num_labels;
  const Tensor result = cu_seqlens ? new_tensor(weight, {input_ids.size(0), labels})
                                   : new_tensor(weight, {input_ids.size(0), input_ids.size(1), labels});
  const Soundness soundness(tokens.tokens, weight, prepared.table.hidden_size, nullptr, on.stream);
  launch_dsn_token_logits({tokens.tokens, prepared.table, prepared.head, plan_rows(tokens.tokens, prepared.table.hidden_size),
                data_of<float>(result)}, on.stream);
  return result;
}

// The context table of a training call, from torch's allocator.
Tensor make_context(TrainingTensors& call, const Tensor& like, void* stream) {
  const Tensor table = new_tensor(like, {call.context.num_types, call.context.num_positions, call.context.hidden_size});
  call.table.context = call.context.context = data_of<float>(table);
  launch_context_table(call.context, call.tokens.tokens, stream);
  return table;
}

std::tuple<Tensor, Tensor, Tensor> embed_pool_forward(
    const Tensor& input_ids, const Tensor& word_embeddings, const Tensor& position_embeddings,
    const Tensor& token_type_embeddings, const Tensor& ln_weight, const Tensor& ln_bias,
    const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
    const OptionalTensor& position_ids, double eps, int64_t pooling, double p_embed, double p_pool,
    const OptionalTensor& seed, int64_t) {
  expect_gpu(input_ids);
  const OnDevice on(input_ids);
  TrainingTensors call(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
                       attention_mask, cu_seqlens, token_type_ids, position_ids, eps, pooling, p_embed, p_pool, seed);
  Tokens& tokens = call.tokens.tokens;
  const Tensor context_table = make_context(call, word_embeddings, on.stream);
  Plan plan = plan_rows(tokens, call.table.hidden_size);
  const SplitMemory memory(plan, word_embeddings, tokens, call.table.hidden_size);
  const Tensor pooled = new_tensor(word_embeddings, {tokens.rows, call.table.hidden_size}, call.type);
  const Tensor pooled_hat = new_tensor(word_embeddings, {tokens.rows, call.table.hidden_size});
  const Tensor rstd = new_tensor(word_embeddings, {tokens.total});
  const Soundness soundness(tokens, word_embeddings, call.table.hidden_size, data_of<float>(rstd), on.stream);
  launch_embed_pool({tokens, call.table, call.dropout, plan, call.ln_weight, call.ln_bias, data_of<void>(pooled),
              data_of<float>(pooled_hat), data_of<float>(rstd)}, on.stream);
  return {pooled, pooled_hat, rstd};
}

// The first kernel of the backward. Where `atomics`, d_context [K, P, H] is there on return, and d_word [V, H] where
// `atomic_word` too; else they are empty and run_sums makes them. What only run_sums needs is empty where both are
// there. Keys of tokens that take no part are V and K * P.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> embed_pool_token_gradients(
    const Tensor& grad_pooled, const Tensor& pooled_hat, const Tensor& input_ids, const Tensor& word_embeddings,
    const Tensor& position_embeddings, const Tensor& token_type_embeddings, const Tensor& ln_weight,
    const Tensor& ln_bias, const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens,
    const OptionalTensor& token_type_ids, const OptionalTensor& position_ids, double eps, int64_t pooling,
    double p_embed, double p_pool, const OptionalTensor& seed, bool atomics, bool atomic_word) {
  expect_gpu(input_ids);
  const OnDevice on(input_ids);
  TrainingTensors call(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
                       attention_mask, cu_seqlens, token_type_ids, position_ids, eps, pooling, p_embed, p_pool, seed);
  Tokens& tokens = call.tokens.tokens;
  const int64_t hidden_size = call.table.hidden_size;
  expect_shape("grad_pooled", grad_pooled, {tokens.rows, hidden_size});
  expect_shape("pooled_hat", pooled_hat, {tokens.rows, hidden_size});
  if (grad_pooled.scalar_type() != call.type) fail("grad_pooled has another dtype than word_embeddings: convert it.");
  const Tensor context_table = make_context(call, word_embeddings, on.stream);
  const auto of_rows = [&] { return new_tensor(word_embeddings, {tokens.rows, hidden_size}); };
  const auto zeros = [&](bool wanted, std::vector<int64_t> shape) {
    Tensor tensor = new_tensor(word_embeddings, wanted ? shape : std::vector<int64_t>{0});
    if (wanted) torch::stable::zero_(tensor);
    return tensor;
  };
  const bool runs = !atomics || !atomic_word;
  const int64_t run_rows = runs ? tokens.rows : 0, run_tokens = runs ? tokens.total : 0;
  const Tensor row_gradient = new_tensor(word_embeddings, {run_rows, hidden_size});
  const Tensor weight_terms = of_rows(), bias_terms = of_rows();
  const Tensor token_gradient = new_tensor(word_embeddings, {run_tokens, int64_t(sizeof(TokenGradient) / sizeof(float))});
  const Tensor word_keys = new_tensor(word_embeddings, {run_tokens}, ScalarType::Int);
  const Tensor context_keys = new_tensor(word_embeddings, {run_tokens}, ScalarType::Int);
  const Tensor d_word = zeros(atomics && atomic_word, {word_embeddings.size(0), hidden_size});
  const Tensor d_context = zeros(atomics, {call.context.num_types, call.context.num_positions, hidden_size});
  Plan plan = plan_rows(tokens, call.table.hidden_size);
  plan.splits = 1;  // a row's blocks would have to share its terms
  const Soundness soundness(tokens, word_embeddings, call.table.hidden_size, nullptr, on.stream);
  launch_token_gradients({tokens, call.table, call.dropout, plan, call.ln_weight, call.tokens.data("grad_pooled", grad_pooled),
                   call.tokens.float_data("pooled_hat", pooled_hat), runs ? data_of<float>(row_gradient) : nullptr,
                   data_of<float>(weight_terms), data_of<float>(bias_terms),
                   runs ? data_of<TokenGradient>(token_gradient) : nullptr, data_of<int32_t>(word_keys),
                   data_of<int32_t>(context_keys), atomics && atomic_word ? data_of<float>(d_word) : nullptr,
                   atomics ? data_of<float>(d_context) : nullptr}, on.stream);
  return {row_gradient, weight_terms, bias_terms, token_gradient, word_keys, context_keys, context_table, d_word, d_context};
}

// Adds up token gradients by key into `sums` [*, H], whose other rows are left alone.
void embed_pool_segment_sums(const Tensor& keys, const Tensor& order, const OptionalTensor& target, const Tensor& row_gradient,
                         const Tensor& token_gradient, const Tensor& word_embeddings, const Tensor& context_table,
                         double p_embed, const OptionalTensor& seed, int64_t num_keys, Tensor sums) {
  const OnDevice on(keys);
  SegmentArguments arguments{};
  arguments.table.hidden_size = int(word_embeddings.size(1));
  arguments.table.word_type = word_type("word_embeddings", word_embeddings, false);
  std::vector<Tensor> keep;
  arguments.table.word = contiguous_data_of(word_embeddings, keep);
  arguments.table.context = data_of<const float>(context_table);
  if (p_embed > 0) {
    arguments.dropout.seed = data_of<const int64_t>(*seed);
    arguments.dropout.embed_threshold = uint32_t(p_embed * 4294967296.0);
  }
  arguments.row_gradient = data_of<const float>(row_gradient);
  arguments.token_gradient = data_of<const TokenGradient>(token_gradient);
  arguments.keys = data_of<const int32_t>(keys);
  arguments.order = data_of<const int64_t>(order);
  arguments.target = target ? data_of<const int64_t>(*target) : nullptr;
  arguments.num_tokens = keys.numel();
  arguments.num_keys = num_keys;
  const int64_t chunks = (keys.numel() + segment_chunk - 1) / segment_chunk;
  const Tensor partial = new_tensor(row_gradient, {2 * chunks, word_embeddings.size(1)});
  arguments.partial = data_of<float>(partial);
  arguments.type = word_type("sums", sums, false);
  arguments.sums = data_of<void>(sums);
  Tokens tokens;
  tokens.rows = row_gradient.size(0);
  tokens.total = keys.numel();
  launch_segment_sums(arguments, tokens, on.stream);
}

#ifndef CUDA_ON_CPU
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
#endif

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dendritic_bert, DISPATCH_KEY, library) {
  library.impl("dsn_logits_cuda", TORCH_BOX(&dsn_logits));
  library.impl("dsn_token_logits_cuda", TORCH_BOX(&dsn_token_logits));
  library.impl("embed_pool_cuda", TORCH_BOX(&embed_pool_forward));
  library.impl("embed_pool_token_gradients_cuda", TORCH_BOX(&embed_pool_token_gradients));
  library.impl("embed_pool_segment_sums_cuda", TORCH_BOX(&embed_pool_segment_sums));
}

#ifndef CUDA_ON_CPU
PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&module); }
#endif
