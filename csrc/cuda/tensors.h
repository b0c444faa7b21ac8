// From tensors to the kernels' plain arguments, with every check that needs no token value: nothing here waits for the
// device. What depends on values, an id outside its table above all, the kernels answer with NaN.
#pragma once

#include <type_traits>

#ifdef CUDA_ON_CPU
#include "executor.h"
#endif

#include "../common/tensor_checks.h"
#include "arguments.h"
#include "plan.h"

namespace dendritic_bert {

// The memory of a contiguous tensor, const where no kernel writes it. On a CPU the executor is told of its bounds.
template <class T>
T* data_of(const Tensor& tensor) {
  void* data = nullptr;
  if constexpr (std::is_const_v<T>) data = const_cast<void*>(tensor.const_data_ptr());
  else data = tensor.mutable_data_ptr();
#ifdef CUDA_ON_CPU
  cuda_on_cpu::add_array(data, size_t(tensor.numel()) * tensor.element_size());
#endif
  return static_cast<T*>(data);
}

// That of a contiguous view or copy; `keep` owns it while the kernel runs.
inline const void* contiguous_data_of(const Tensor& tensor, std::vector<Tensor>& keep) {
  if (tensor.is_contiguous()) return data_of<const void>(tensor);
  keep.push_back(torch::stable::contiguous(tensor));
  return data_of<const void>(keep.back());
}

// The device of a call, that of input_ids; all tensors must be there.
struct CallDevice {
  const Tensor& input_ids;
  void expect(const char* name, const Tensor& tensor) const {
    if (tensor.is_cpu() != input_ids.is_cpu() || tensor.get_device_index() != input_ids.get_device_index())
      fail(name, " is not on the device of input_ids: move one of them.");
  }
};

inline WordType word_type(const char* name, const Tensor& tensor, bool prepared) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return WordType::float32;
    case ScalarType::BFloat16: return WordType::bfloat16;
    case ScalarType::Half: return WordType::float16;
    case ScalarType::Char:
      if (prepared) return WordType::int8;
      break;
    case ScalarType::Float8_e4m3fn:
      if (prepared) return WordType::float8_e4m3;
      break;
    default: break;
  }
  fail(name, " is none of float32, bfloat16, float16", prepared ? ", int8, float8_e4m3fn" : "", ": convert it.");
}

inline int hidden_size_of(const char* name, const Tensor& word) {
  if (word.dim() != 2 || word.size(1) == 0) fail(name, " has shape ", shape_of(word), ", expected [V, H] with H >= 1.");
  if (word.size(1) > max_hidden_size)
    fail(name, " has shape ", shape_of(word), ", the cuda backend takes a hidden size of ", max_hidden_size,
         " at most: use another backend.");
  return int(word.size(1));
}

// The tokens of a call; owns what had to be copied.
struct TokenTensors {
  Tokens tokens;
  CallDevice device;
  std::vector<Tensor> keep;

  TokenTensors(const Tensor& input_ids, const OptionalTensor& mask, const OptionalTensor& cu_seqlens,
               const OptionalTensor& token_types, const OptionalTensor& positions, int64_t pooling)
      : device{input_ids} {
    if (input_ids.dim() != (cu_seqlens ? 1 : 2))
      fail("input_ids has shape ", shape_of(input_ids), ", expected [B, L], or [T] beside cu_seqlens.");
    if (pooling < 0 || pooling > 2) fail("pooling is ", pooling, ", expected 0, 1 or 2.");
    tokens.pooling = Pooling(pooling);
    tokens.ids = indices("input_ids", input_ids);
    tokens.total = input_ids.numel();
    if (cu_seqlens) {
      if (mask)
        fail("attention_mask and cu_seqlens are both given: pass the mask with [B, L], cu_seqlens with [T].");
      expect_cu_seqlens_shape(*cu_seqlens, input_ids);
      tokens.cu_seqlens = indices("cu_seqlens", *cu_seqlens);
      tokens.rows = cu_seqlens->numel() - 1;
    } else {
      tokens.rows = input_ids.size(0);
      tokens.length = input_ids.size(1);
    }
    if (mask) take_mask(*mask);
    if (token_types) tokens.token_types = beside_ids("token_type_ids", *token_types);
    if (positions) tokens.positions = beside_ids("position_ids", *positions);
  }
  TokenTensors(const TokenTensors&) = delete;  // `device` points into the caller's frame

  void set_tables(int64_t vocab_size, int64_t num_types, int64_t num_positions) {
    if (vocab_size > INT32_MAX || num_types * num_positions > INT32_MAX)
      fail("a table has more than 2^31 - 1 rows, which the cuda backend cannot address.");
    if (!tokens.cu_seqlens.data && !tokens.positions.data && tokens.rows > 0 && tokens.length > num_positions)
      fail("row 0 has ", tokens.length, " tokens, the position table ", num_positions, ": truncate the row.");
    tokens.vocab_size = vocab_size;
    tokens.num_types = num_types;
    tokens.num_positions = num_positions;
  }

  const void* data(const char* name, const Tensor& tensor) {
    device.expect(name, tensor);
    return contiguous_data_of(tensor, keep);
  }

  const float* float_data(const char* name, const Tensor& tensor) {
    if (tensor.scalar_type() != ScalarType::Float) fail(name, " is not float32: convert it.");
    return static_cast<const float*>(data(name, tensor));
  }

 private:
  Indices indices(const char* name, const Tensor& tensor) {
    const ScalarType type = tensor.scalar_type();
    if (type != ScalarType::Int && type != ScalarType::Long) fail(name, " is neither int32 nor int64: convert it.");
    return {data(name, tensor), type == ScalarType::Long};
  }

  Indices beside_ids(const char* name, const Tensor& tensor) {
    expect_ids_shape(name, tensor, device.input_ids);
    return indices(name, tensor);
  }

  void take_mask(const Tensor& mask) {
    expect_ids_shape("attention_mask", mask, device.input_ids);
    if (tokens.pooling != Pooling::mean_masked) return device.expect("attention_mask", mask);
    switch (mask.scalar_type()) {
      case ScalarType::Bool: case ScalarType::Byte: case ScalarType::Char: tokens.mask_bytes = 1; break;
      case ScalarType::Int: tokens.mask_bytes = 4; break;
      case ScalarType::Long: tokens.mask_bytes = 8; break;
      default: fail("attention_mask is neither bool nor integer: pass attention_mask != 0.");
    }
    tokens.mask = data("attention_mask", mask);
  }
};

// The prepared table and head of dsn_logits and dsn_token_logits.
struct PreparedTensors {
  Table table;
  Head head;

  PreparedTensors(TokenTensors& tokens, const Tensor& word, const OptionalTensor& word_scale, const Tensor& context,
                  double eps, const Tensor& weight, const Tensor& bias, const Tensor& beta_bias, const Tensor& lateral,
                  const Tensor& top, int64_t activation) {
    const int64_t hidden_size = table.hidden_size = hidden_size_of("word", word);
    if (context.dim() != 3 || context.size(0) == 0 || context.size(2) != hidden_size)
      fail("context has shape ", shape_of(context), ", expected [K, P, ", hidden_size, "] with H and K >= 1.");
    if (top.dim() != 2) fail("top has shape ", shape_of(top), ", expected [N, C].");
    const int64_t num_dendrites = top.size(0), num_labels = top.size(1), outputs = (1 + num_dendrites) * num_labels;
    expect_shape("weight", weight, {outputs, hidden_size});
    expect_shape("bias", bias, {outputs});
    expect_shape("beta_bias", beta_bias, {outputs});
    expect_shape("lateral", lateral, {num_dendrites, num_dendrites, num_labels});
    if (activation < 0 || activation > 3) fail("activation is ", activation, ", expected 0 to 3.");
    table.word_type = word_type("word", word, true);
    const bool scaled = table.word_type == WordType::int8 || table.word_type == WordType::float8_e4m3;
    if (scaled != word_scale.has_value())
      fail("word_scale goes with an int8 or float8_e4m3fn word table and with no other.");
    if (word_scale) {
      expect_shape("word_scale", *word_scale, {word.size(0)});
      table.word_scale = tokens.float_data("word_scale", *word_scale);
    }
    table.word = tokens.data("word", word);
    table.context = tokens.float_data("context", context);
    table.eps = float(eps);
    tokens.set_tables(word.size(0), context.size(0), context.size(1));
    head = {tokens.float_data("weight", weight), tokens.float_data("bias", bias),
            tokens.float_data("beta_bias", beta_bias), tokens.float_data("lateral", lateral),
            tokens.float_data("top", top), int(num_labels), int(num_dendrites), Activation(activation)};
  }
};

// The parameters of embed_pool and its backward. The context table [K, P, H] of the types and positions that may occur
// is filled by the caller.
struct TrainingTensors {
  TokenTensors tokens;
  Table table;
  Dropout dropout;
  ContextArguments context;
  const void *ln_weight, *ln_bias;
  ScalarType type;

  TrainingTensors(const Tensor& input_ids, const Tensor& word, const Tensor& position, const Tensor& token_type,
                  const Tensor& ln_weight_, const Tensor& ln_bias_, const OptionalTensor& attention_mask,
                  const OptionalTensor& cu_seqlens, const OptionalTensor& token_type_ids,
                  const OptionalTensor& position_ids, double eps, int64_t pooling, double p_embed, double p_pool,
                  const OptionalTensor& seed)
      : tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, pooling), type(word.scalar_type()) {
    table.hidden_size = hidden_size_of("word_embeddings", word);
    table.word_type = word_type("word_embeddings", word, false);
    table.word = parameter("word_embeddings", word, 2);
    table.eps = float(eps);
    context.position = parameter("position_embeddings", position, 2);
    context.token_type = parameter("token_type_embeddings", token_type, 2);
    ln_weight = parameter("ln_weight", ln_weight_, 1);
    ln_bias = parameter("ln_bias", ln_bias_, 1);
    if (position.size(0) == 0 || token_type.size(0) == 0)
      fail("position_embeddings or token_type_embeddings has no row.");
    set_dropout(p_embed, p_pool, seed);
    tokens.set_tables(word.size(0), token_type.size(0), position.size(0));
    context.type = table.word_type;
    context.hidden_size = table.hidden_size;
    context.num_types = tokens.tokens.num_types = token_type_ids ? token_type.size(0) : 1;
    context.num_positions = tokens.tokens.num_positions =
        position_ids ? position.size(0) : std::clamp<int64_t>(longest_row(tokens.tokens), 1, position.size(0));
  }

 private:
  const void* parameter(const char* name, const Tensor& tensor, int64_t dims) {
    if (tensor.dim() != dims || tensor.size(dims - 1) != table.hidden_size)
      fail(name, " has shape ", shape_of(tensor), ", expected ", dims == 2 ? "[*, " : "[", table.hidden_size,
           "], the hidden size of word_embeddings.");
    if (tensor.scalar_type() != type) fail(name, " has another dtype than word_embeddings: convert one of them.");
    return tokens.data(name, tensor);
  }

  void set_dropout(double p_embed, double p_pool, const OptionalTensor& seed) {
    expect_probability("p_embed", p_embed);
    expect_probability("p_pool", p_pool);
    if (p_embed == 0 && p_pool == 0) return;
    if (!seed || seed->numel() != 1 || seed->scalar_type() != ScalarType::Long)
      fail("seed is missing or not one int64, which dropout needs.");
    dropout.seed = static_cast<const int64_t*>(tokens.data("seed", *seed));
    dropout.embed_threshold = uint32_t(p_embed * 4294967296.0);
    dropout.pool_threshold = uint32_t(p_pool * 4294967296.0);
    dropout.embed_scale = float(1 / (1 - p_embed));
    dropout.pool_scale = float(1 / (1 - p_pool));
  }
};

}  // namespace dendritic_bert
