// What the bindings of all backends ask of a tensor: shapes, errors in one sentence, data that is contiguous.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <class... Parts>
[[noreturn]] inline void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ']';
  return text.str();
}

inline bool is_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  if (tensor.dim() != int64_t(shape.size())) return false;
  int64_t i = 0;
  for (int64_t size : shape)
    if (tensor.size(i++) != size) return false;
  return true;
}

inline void expect_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  if (is_shape(tensor, shape)) return;
  std::ostringstream expected;
  for (int64_t size : shape) expected << (expected.tellp() > 0 ? ", " : "") << size;
  fail(name, " has shape ", shape_of(tensor), ", expected [", expected.str(), "].");
}

inline void expect_ids_shape(const char* name, const Tensor& tensor, const Tensor& input_ids) {
  const bool same = tensor.dim() == input_ids.dim() && tensor.size(0) == input_ids.size(0) &&
                    (tensor.dim() == 1 || tensor.size(1) == input_ids.size(1));
  if (!same) fail(name, " has shape ", shape_of(tensor), ", expected ", shape_of(input_ids), ", that of input_ids.");
}

// Without a row there is no place for a token: the shapes alone tell, so this is refused where no value can be read too.
inline void expect_cu_seqlens_shape(const Tensor& cu_seqlens, const Tensor& input_ids) {
  if (cu_seqlens.dim() != 1 || cu_seqlens.numel() == 0)
    fail("cu_seqlens has shape ", shape_of(cu_seqlens), ", expected [B + 1].");
  if (cu_seqlens.numel() == 1 && input_ids.numel() > 0)
    fail("cu_seqlens has shape [1], no row, beside ", input_ids.numel(), " input_ids: pass the end of each row too.");
}

inline void expect_probability(const char* name, double p) {
  if (!(p >= 0 && p < 1)) fail(name, " is ", p, ", expected 0 <= ", name, " < 1.");
}

// A contiguous view or copy; `keep` owns it while the kernel runs.
inline const void* contiguous_data(const Tensor& tensor, std::vector<Tensor>& keep) {
  if (tensor.is_contiguous()) return tensor.const_data_ptr();
  keep.push_back(torch::stable::contiguous(tensor));
  return keep.back().const_data_ptr();
}
