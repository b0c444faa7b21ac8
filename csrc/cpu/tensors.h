// From tensors to the kernels' plain arguments, with every check that needs no token value.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../common/tensor_checks.h"
#include "arguments.h"

inline void expect_cpu(const char* name, const Tensor& tensor) {
  if (!tensor.is_cpu()) fail(name, " is not on the CPU, where the other tensors are: move it.");
}

inline const float* float_data(const char* name, const Tensor& tensor, std::vector<Tensor>& keep) {
  expect_cpu(name, tensor);
  if (tensor.scalar_type() != ScalarType::Float) fail(name, " is not float32: convert it.");
  return static_cast<const float*>(contiguous_data(tensor, keep));
}

// As float32, converted where it is half.
inline const float* as_float_data(const Tensor& tensor, std::vector<Tensor>& keep) {
  if (tensor.scalar_type() == ScalarType::Float) return static_cast<const float*>(contiguous_data(tensor, keep));
  keep.push_back(torch::stable::contiguous(torch::stable::to(tensor, ScalarType::Float)));
  return static_cast<const float*>(keep.back().const_data_ptr());
}

inline Indices indices(const char* name, const Tensor& tensor, std::vector<Tensor>& keep) {
  expect_cpu(name, tensor);
  const ScalarType type = tensor.scalar_type();
  if (type != ScalarType::Int && type != ScalarType::Long) fail(name, " is neither int32 nor int64: convert it.");
  return {contiguous_data(tensor, keep), type == ScalarType::Long};
}

inline WordType word_type(const char* name, const Tensor& tensor, bool inference) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return WordType::float32;
    case ScalarType::BFloat16: return WordType::bfloat16;
    case ScalarType::Half: return WordType::float16;
    case ScalarType::Char:
      if (inference) return WordType::int8;
      [[fallthrough]];
    default: fail(name, " is none of float32, bfloat16, float16", inference ? ", int8" : "", ": convert it.");
  }
}

// The tokens of a call. Owns what had to be copied, and cu_seqlens widened to int64.
struct TokenTensors {
  Tokens tokens;
  std::vector<Tensor> keep;
  std::vector<int64_t> cu_seqlens;
  int64_t bad_index = INT64_MAX;

  TokenTensors(const Tensor& input_ids, const OptionalTensor& mask, const OptionalTensor& cu,
               const OptionalTensor& token_types, const OptionalTensor& positions, int64_t pooling) {
    if (input_ids.dim() != (cu ? 1 : 2))
      fail("input_ids has shape ", shape_of(input_ids), ", expected [B, L], or [T] beside cu_seqlens.");
    if (pooling < 0 || pooling > 2) fail("pooling is ", pooling, ", expected 0, 1 or 2.");
    tokens.pooling = Pooling(pooling);
    tokens.ids = indices("input_ids", input_ids, keep);
    tokens.total = input_ids.numel();
    if (cu) {
      if (mask)
        fail("attention_mask and cu_seqlens are both given: pass the mask with [B, L], cu_seqlens with [T].");
      expect_cu_seqlens_shape(*cu, input_ids);
      take_cu_seqlens(*cu);
    } else {
      tokens.rows = input_ids.size(0);
      tokens.length = input_ids.size(1);
    }
    if (mask) take_mask(*mask, input_ids);
    if (token_types) tokens.token_types = beside_ids("token_type_ids", *token_types, input_ids);
    if (positions) tokens.positions = beside_ids("position_ids", *positions, input_ids);
  }
  TokenTensors(const TokenTensors&) = delete;  // tokens points into it

  // The tables' sizes, once known: rows longer than the position table are refused here, bad indices by the kernel.
  void set_tables(int64_t vocab_size, int64_t num_types, int64_t num_positions) {
    if (vocab_size > INT32_MAX || num_types * num_positions > INT32_MAX)
      fail("a table has more than 2^31 - 1 rows, which the cpu backend cannot address.");
    tokens.vocab_size = vocab_size;
    tokens.num_types = num_types;
    tokens.num_positions = tokens.positions_stride = num_positions;
    tokens.bad_index = &bad_index;
    if (tokens.positions.data) return;
    for (int64_t row = 0; row < (tokens.cu_seqlens ? tokens.rows : std::min<int64_t>(tokens.rows, 1)); ++row)
      if (tokens.row_length(row) > num_positions)
        fail("row ", row, " has ", tokens.row_length(row), " tokens, the position table ", num_positions,
             ": truncate the row.");
  }

  int64_t longest_row() const {
    if (!tokens.cu_seqlens) return tokens.rows ? tokens.length : 0;
    int64_t longest = 0;
    for (int64_t row = 0; row < tokens.rows; ++row) longest = std::max(longest, tokens.row_length(row));
    return longest;
  }

  // After the kernel: the first bad index, in words.
  void raise_bad_index() const {
    if (bad_index == INT64_MAX) return;
    const int64_t token = bad_index / 4;
    int64_t row = 0;
    while (tokens.row_start(row) + tokens.row_length(row) <= token) ++row;
    switch (bad_index % 4) {
      case bad_id: raise("input_ids", tokens.ids[token], row, tokens.vocab_size);
      case bad_token_type: raise("token_type_ids", tokens.token_types[token], row, tokens.num_types);
      default: raise("position_ids", tokens.positions[token], row, tokens.num_positions);
    }
  }

 private:
  [[noreturn]] static void raise(const char* name, int64_t value, int64_t row, int64_t size) {
    fail(name, " holds ", value, " in row ", row, ", expected 0 to ", size - 1, ".");
  }

  Indices beside_ids(const char* name, const Tensor& tensor, const Tensor& input_ids) {
    expect_ids_shape(name, tensor, input_ids);
    return indices(name, tensor, keep);
  }

  void take_mask(const Tensor& mask, const Tensor& input_ids) {
    expect_ids_shape("attention_mask", mask, input_ids);
    expect_cpu("attention_mask", mask);
    if (tokens.pooling != Pooling::mean_masked) return;
    switch (mask.scalar_type()) {
      case ScalarType::Bool: case ScalarType::Byte: case ScalarType::Char: tokens.mask_bytes = 1; break;
      case ScalarType::Int: tokens.mask_bytes = 4; break;
      case ScalarType::Long: tokens.mask_bytes = 8; break;
      default: fail("attention_mask is neither bool nor integer: pass attention_mask != 0.");
    }
    tokens.mask = contiguous_data(mask, keep);
  }

  void take_cu_seqlens(const Tensor& cu) {
    const Indices values = indices("cu_seqlens", cu, keep);
    tokens.rows = cu.numel() - 1;
    if (values.is_int64) {
      tokens.cu_seqlens = static_cast<const int64_t*>(values.data);
    } else {
      cu_seqlens.resize(size_t(cu.numel()));
      for (int64_t i = 0; i < cu.numel(); ++i) cu_seqlens[size_t(i)] = values[i];
      tokens.cu_seqlens = cu_seqlens.data();
    }
    const int64_t* seqlens = tokens.cu_seqlens;
    if (seqlens[0] != 0 || seqlens[tokens.rows] != tokens.total)
      fail("cu_seqlens runs from ", seqlens[0], " to ", seqlens[tokens.rows], ", expected 0 to ", tokens.total,
           ", the number of input_ids.");
    for (int64_t row = 0; row < tokens.rows; ++row)
      if (seqlens[row + 1] < seqlens[row])
        fail("cu_seqlens falls from ", seqlens[row], " to ", seqlens[row + 1], " at row ", row, ".");
  }
};
