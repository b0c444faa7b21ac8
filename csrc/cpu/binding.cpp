// The CPU kernels of the ops that kernels/ops.py defines.
#ifndef Py_LIMITED_API  // newer versions of torch's build extension define it themselves
#define Py_LIMITED_API 0x030a0000
#endif
#include <Python.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "tensors.h"

#include "sort.h"

namespace {

void parallel_for(int64_t begin, int64_t end, int64_t grain, RangeBody body, void* context) {
  if (end - begin <= grain) return body(begin, end, context);
  torch::stable::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) { body(first, last, context); });
}

Tensor new_tensor(const Tensor& like, std::vector<int64_t> shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

// A gradient as large as the word table is fresh memory every time: with huge pages it costs tens of page faults where it
// would cost thousands, a quarter of forward and backward together at H = 128 and 32,768 tokens.
void advise_huge_pages([[maybe_unused]] const Tensor& tensor) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t(1) << 21;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + size_t(tensor.numel()) * tensor.element_size()) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

float* floats(const Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

Tensor dsn_logits(const Tensor& input_ids, const Tensor& word, const OptionalTensor& word_scale, const Tensor& context,
                  double eps, const Tensor& weight, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                  const Tensor& top, int64_t activation, const OptionalTensor& attention_mask,
                  const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                  const OptionalTensor& position_ids, int64_t pooling) {
  TokenTensors tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling);
  if (word.dim() != 2 || word.size(1) == 0)
    fail("word has shape ", shape_of(word), ", expected [V, H] with H and K >= 1.");
  const int64_t hidden_size = word.size(1);
  if (context.dim() != 3 || context.size(0) == 0 || context.size(2) != hidden_size)
    fail("context has shape ", shape_of(context), ", expected [K, P, ", hidden_size, "] with H and K >= 1.");
  if (top.dim() != 2) fail("top has shape ", shape_of(top), ", expected [N, C].");
  const int64_t num_dendrites = top.size(0), num_labels = top.size(1), outputs = (1 + num_dendrites) * num_labels;
  expect_shape("weight", weight, {outputs, hidden_size});
  expect_shape("bias", bias, {outputs});
  expect_shape("beta_bias", beta_bias, {outputs});
  expect_shape("lateral", lateral, {num_dendrites, num_dendrites, num_labels});
  if (activation < 0 || activation > 3) fail("activation is ", activation, ", expected 0 to 3.");

  std::vector<Tensor>& keep = tokens.keep;
  Table table;
  expect_cpu("word", word);
  table.word_type = word_type("word", word, true);
  if ((table.word_type == WordType::int8) != word_scale.has_value())
    fail("word_scale goes with an int8 word table and with no other.");
  if (word_scale) {
    expect_shape("word_scale", *word_scale, {word.size(0)});
    table.word_scale = float_data("word_scale", *word_scale, keep);
  }
  table.word = contiguous_data(word, keep);
  table.context = float_data("context", context, keep);
  table.context_stride = table.hidden_size = hidden_size;
  table.eps = float(eps);
  table.centred = true;
  tokens.set_tables(word.size(0), context.size(0), context.size(1));

  const Head head{float_data("weight", weight, keep), float_data("bias", bias, keep),
                  float_data("beta_bias", beta_bias, keep), float_data("lateral", lateral, keep),
                  float_data("top", top, keep), num_labels, num_dendrites, Activation(activation)};
  const Tensor logits = new_tensor(weight, {tokens.tokens.rows, num_labels}, ScalarType::Float);
  chosen_kernels().logits({tokens.tokens, table, head, floats(logits), int(torch::stable::get_num_threads()),
                           parallel_for});
  tokens.raise_bad_index();
  return logits;
}

Tensor dsn_logits_folded(const Tensor& input_ids, const Tensor& rstd, const Tensor& word, const Tensor& context,
                         int64_t num_positions, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                         const Tensor& top, int64_t activation, const OptionalTensor& attention_mask,
                         const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                         const OptionalTensor& position_ids, int64_t pooling) {
  TokenTensors tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling);
  if (top.dim() != 2) fail("top has shape ", shape_of(top), ", expected [N, C].");
  const int64_t num_dendrites = top.size(0), num_labels = top.size(1), outputs = (1 + num_dendrites) * num_labels;
  const int64_t stride = outputs <= 4 ? 4 : outputs <= 8 ? 8 : (outputs + 15) / 16 * 16;
  if (word.dim() != 2 || word.size(1) != stride)
    fail("word has shape ", shape_of(word), ", expected [V, ", stride, "].");
  if (rstd.dim() != 4 || rstd.size(0) == 0 || rstd.size(2) != word.size(0) || rstd.size(3) != 16)
    fail("rstd has shape ", shape_of(rstd), ", expected [K, P / 16, ", word.size(0), ", 16] with K >= 1.");
  const int64_t positions_stride = rstd.size(1) * 16;
  expect_shape("context", context, {rstd.size(0), positions_stride, stride});
  if (num_positions < 0 || num_positions > positions_stride)
    fail("num_positions is ", num_positions, ", expected 0 to ", positions_stride, ".");
  expect_shape("bias", bias, {outputs});
  expect_shape("beta_bias", beta_bias, {outputs});
  expect_shape("lateral", lateral, {num_dendrites, num_dendrites, num_labels});
  if (activation < 0 || activation > 3) fail("activation is ", activation, ", expected 0 to 3.");

  std::vector<Tensor>& keep = tokens.keep;
  tokens.set_tables(word.size(0), rstd.size(0), num_positions);
  tokens.tokens.positions_stride = positions_stride;
  const Folded folded{float_data("rstd", rstd, keep), float_data("word", word, keep),
                      float_data("context", context, keep), stride};
  const Head head{nullptr, float_data("bias", bias, keep), float_data("beta_bias", beta_bias, keep),
                  float_data("lateral", lateral, keep), float_data("top", top, keep), num_labels, num_dendrites,
                  Activation(activation)};
  const Tensor logits = new_tensor(bias, {tokens.tokens.rows, num_labels}, ScalarType::Float);
  chosen_kernels().folded_logits({tokens.tokens, folded, head, floats(logits),
                                  int(torch::stable::get_num_threads()), parallel_for});
  tokens.raise_bad_index();
  return logits;
}

// What forward and backward of embed_pool share: the arguments, checked, and the context table [K, P, H] of the types
// and positions that occur, in float32 with rows padded to 16 floats.
struct EmbedPool {
  TokenTensors tokens;
  Table table;
  Dropout dropout;
  const float* ln_weight;
  int64_t num_types, num_positions;  // of the context table
  std::vector<float> context;
  ScalarType type;

  EmbedPool(const Tensor& input_ids, const Tensor& word, const Tensor& position, const Tensor& token_type,
            const Tensor& ln_weight_, const Tensor& ln_bias, const OptionalTensor& attention_mask,
            const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids, const OptionalTensor& position_ids,
            double eps, int64_t pooling, double p_embed, double p_pool, const OptionalTensor& seed)
      : tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling) {
    if (word.dim() != 2 || word.size(1) == 0)
      fail("word_embeddings has shape ", shape_of(word), ", expected [V, H] with H >= 1.");
    const int64_t hidden_size = word.size(1);
    type = word.scalar_type();
    table.word_type = word_type("word_embeddings", word, false);
    check_parameter("word_embeddings", word, 2, hidden_size);
    check_parameter("position_embeddings", position, 2, hidden_size);
    check_parameter("token_type_embeddings", token_type, 2, hidden_size);
    check_parameter("ln_weight", ln_weight_, 1, hidden_size);
    check_parameter("ln_bias", ln_bias, 1, hidden_size);
    expect_probability("p_embed", p_embed);
    expect_probability("p_pool", p_pool);
    if ((p_embed > 0 || p_pool > 0) && !(seed && seed->numel() == 1 && seed->scalar_type() == ScalarType::Long))
      fail("seed is missing or not one int64, which dropout needs.");
    dropout = {p_embed, p_pool, seed ? uint64_t(*static_cast<const int64_t*>(seed->const_data_ptr())) : 0};

    tokens.set_tables(word.size(0), token_type.size(0), position.size(0));
    num_types = token_type_ids ? token_type.size(0) : 1;
    num_positions = position_ids ? position.size(0) : std::max<int64_t>(1, tokens.longest_row());
    if (position.size(0) == 0 || token_type.size(0) == 0)
      fail("position_embeddings or token_type_embeddings has no row.");
    tokens.tokens.num_positions = tokens.tokens.positions_stride = num_positions;
    ln_weight = as_float_data(ln_weight_, tokens.keep);
    table.word = contiguous_data(word, tokens.keep);
    table.hidden_size = hidden_size;
    table.eps = float(eps);
    build_context(as_float_data(position, tokens.keep), as_float_data(token_type, tokens.keep));
  }

 private:
  void check_parameter(const char* name, const Tensor& tensor, int64_t dims, int64_t hidden_size) const {
    expect_cpu(name, tensor);
    if (tensor.dim() != dims || tensor.size(dims - 1) != hidden_size)
      fail(name, " has shape ", shape_of(tensor), ", expected ", dims == 2 ? "[*, " : "[", hidden_size,
           "], the hidden size of word_embeddings.");
    if (tensor.scalar_type() != type) fail(name, " has another dtype than word_embeddings: convert one of them.");
  }

  void build_context(const float* position, const float* token_type) {
    const int64_t hidden_size = table.hidden_size;
    table.context_stride = (hidden_size + 15) / 16 * 16;
    context.assign(size_t(num_types * num_positions * table.context_stride), 0.0f);
    for (int64_t k = 0; k < num_types; ++k)
      for (int64_t p = 0; p < num_positions; ++p) {
        float* row = context.data() + (k * num_positions + p) * table.context_stride;
        for (int64_t h = 0; h < hidden_size; ++h) row[h] = position[p * hidden_size + h] + token_type[k * hidden_size + h];
      }
    table.context = context.data();
  }
};

std::tuple<Tensor, Tensor, Tensor> embed_pool(
    const Tensor& input_ids, const Tensor& word_embeddings, const Tensor& position_embeddings,
    const Tensor& token_type_embeddings, const Tensor& ln_weight, const Tensor& ln_bias,
    const OptionalTensor& attention_mask, const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
    const OptionalTensor& position_ids, double eps, int64_t pooling, double p_embed, double p_pool,
    const OptionalTensor& seed, int64_t) {
  EmbedPool call(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
                 attention_mask, cu_seqlens, token_type_ids, position_ids, eps, pooling, p_embed, p_pool, seed);
  const int64_t rows = call.tokens.tokens.rows, hidden_size = call.table.hidden_size;
  Tensor pooled = new_tensor(word_embeddings, {rows, hidden_size}, ScalarType::Float);
  const Tensor pooled_hat = new_tensor(word_embeddings, {rows, hidden_size}, ScalarType::Float);
  Tensor rstd = new_tensor(word_embeddings, {call.tokens.tokens.total}, ScalarType::Float);
  if (call.tokens.tokens.mask_bytes) torch::stable::zero_(rstd);  // masked tokens have none
  chosen_kernels().forward({call.tokens.tokens, call.table, call.dropout, call.ln_weight,
                            as_float_data(ln_bias, call.tokens.keep), floats(pooled), floats(pooled_hat), floats(rstd),
                            int(torch::stable::get_num_threads()), parallel_for});
  call.tokens.raise_bad_index();
  if (call.type != ScalarType::Float) pooled = torch::stable::to(pooled, call.type);
  return {pooled, pooled_hat, rstd};
}

// [K, P, H] -> position gradient [rows of the position table, H] and token type gradient. A type's gradient is a sum over
// every token of the batch, so it is taken in double: torch's own pairwise sum would be ten times as exact otherwise.
void split_context(const EmbedPool& call, const float* d_context, float* d_position, float* d_token_type) {
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
  EmbedPool call(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight, ln_bias,
                 attention_mask, cu_seqlens, token_type_ids, position_ids, eps, pooling, p_embed, p_pool, seed);
  const Tokens& tokens = call.tokens.tokens;
  if (tokens.total > INT32_MAX) fail("input_ids holds ", tokens.total, " tokens, backward takes 2^31 - 1: split the batch.");
  std::vector<Tensor>& keep = call.tokens.keep;
  const int64_t hidden_size = call.table.hidden_size;
  expect_shape("grad_pooled", grad_pooled, {tokens.rows, hidden_size});
  expect_shape("pooled_hat", pooled_hat, {tokens.rows, hidden_size});
  expect_shape("rstd", rstd, {tokens.total});

  Tensor d_position = new_tensor(word_embeddings, {position_embeddings.size(0), hidden_size}, ScalarType::Float);
  Tensor d_token_type = new_tensor(word_embeddings, {token_type_embeddings.size(0), hidden_size}, ScalarType::Float);
  Tensor d_ln_weight = new_tensor(word_embeddings, {hidden_size}, ScalarType::Float);
  Tensor d_ln_bias = new_tensor(word_embeddings, {hidden_size}, ScalarType::Float);
  torch::stable::zero_(d_position);
  torch::stable::zero_(d_token_type);
  std::vector<TokenPlace> places(static_cast<size_t>(tokens.total));
  std::vector<float> row_gradient(size_t(tokens.rows * call.table.context_stride));
  const BackwardArguments arguments{
      tokens, call.table, call.dropout, call.ln_weight, as_float_data(grad_pooled, keep),
      float_data("pooled_hat", pooled_hat, keep), float_data("rstd", rstd, keep), call.num_types * call.num_positions,
      places.data(), row_gradient.data(), floats(d_ln_weight), floats(d_ln_bias), parallel_for};
  chosen_kernels().rows_backward(arguments);
  call.tokens.raise_bad_index();

  const TokensById by_id = tokens_by_id(tokens);
  const WordGradient word_gradient{int(word_grad)};
  const int64_t num_unique = int64_t(by_id.unique_ids.size());
  const int64_t num_ids = word_gradient == WordGradient::sparse ? num_unique : 0;
  const Tensor d_word = new_tensor(
      word_embeddings, {word_gradient == WordGradient::dense ? word_embeddings.size(0) : num_ids, hidden_size}, call.type);
  if (word_gradient == WordGradient::dense) advise_huge_pages(d_word);
  const Tensor d_word_ids = new_tensor(word_embeddings, {num_ids}, ScalarType::Long);
  std::copy_n(by_id.unique_ids.begin(), num_ids, static_cast<int64_t*>(d_word_ids.mutable_data_ptr()));
  std::vector<float> d_context(size_t(arguments.num_contexts * hidden_size));
  chosen_kernels().ids_backward({arguments, by_id.tokens.data(), by_id.id_start.data(), by_id.unique_ids.data(),
                                 num_unique, word_gradient, d_word.mutable_data_ptr(), d_context.data()});
  split_context(call, d_context.data(), floats(d_position), floats(d_token_type));

  const auto as_parameter = [&](const Tensor& t) {
    return call.type == ScalarType::Float ? t : torch::stable::to(t, call.type);
  };
  return {d_word, d_word_ids, as_parameter(d_position), as_parameter(d_token_type), as_parameter(d_ln_weight),
          as_parameter(d_ln_bias)};
}

PyObject* instruction_set(PyObject*, PyObject*) { return PyUnicode_FromString(chosen_kernels().name); }

PyMethodDef methods[] = {
    {"instruction_set", instruction_set, METH_NOARGS, "The instruction set whose kernels were chosen."},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dendritic_bert, CPU, library) {
  library.impl("dsn_logits_cpu", TORCH_BOX(&dsn_logits));
  library.impl("dsn_logits_folded_cpu", TORCH_BOX(&dsn_logits_folded));
  library.impl("embed_pool_cpu", TORCH_BOX(&embed_pool));
  library.impl("embed_pool_backward_cpu", TORCH_BOX(&embed_pool_backward));
}

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&module); }
