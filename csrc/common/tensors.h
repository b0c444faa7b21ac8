// From the tensors of a call to the memory that the kernels read. Errors are one sentence that names the argument, what
// is wrong with it and the remedy; kernels/validation.py states the same rules for the backends that are not in C++.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#ifdef CUDA_ON_CPU
#include "executor.h"
#endif

#include "arguments.h"

namespace dendritic_bert {

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

inline bool has_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  if (tensor.dim() != int64_t(shape.size())) return false;
  int64_t i = 0;
  for (int64_t size : shape)
    if (tensor.size(i++) != size) return false;
  return true;
}

// The text is made for an error alone. Made in advance, and with the device of input_ids asked for each tensor anew, a
// call for one row took 5.2 us instead of 4.4 (AMD EPYC).
inline void expect_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  if (has_shape(tensor, shape)) return;
  std::ostringstream expected;
  const char* separator = "";
  for (int64_t size : shape) {
    expected << separator << size;
    separator = ", ";
  }
  fail(name, " has shape ", shape_of(tensor), ", expected [", expected.str(), "].");
}

inline Tensor new_tensor(const Tensor& like, std::vector<int64_t> shape, ScalarType type = ScalarType::Float) {
  return torch::stable::new_empty(like, shape, type);
}

// The memory of a contiguous tensor; T is const where no kernel writes it. Where tests run the CUDA kernels on a CPU,
// the executor is told the bounds of the array.
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

// Reads the tensors of one call, which must all be on the device of input_ids. Owns the contiguous copies of those that
// were not contiguous, so it must live until the kernel has run.
class TensorReader {
 public:
  explicit TensorReader(const Tensor& input_ids)
      : is_cpu_(input_ids.is_cpu()), device_index_(input_ids.get_device_index()) {}
  TensorReader(const TensorReader&) = delete;  // two readers would own the copies of one call

  void expect_device(const char* name, const Tensor& tensor) const {
    if (tensor.is_cpu() != is_cpu_ || (!is_cpu_ && tensor.get_device_index() != device_index_))
      fail(name, " is not on the device of input_ids: move one of them.");
  }

  const void* data(const char* name, const Tensor& tensor) {
    expect_device(name, tensor);
    if (tensor.is_contiguous()) return data_of<const void>(tensor);
    return data_of<const void>(own(torch::stable::contiguous(tensor)));
  }

  const float* float_data(const char* name, const Tensor& tensor) {
    if (tensor.scalar_type() != ScalarType::Float) fail(name, " is not float32: convert it.");
    return static_cast<const float*>(data(name, tensor));
  }

  // The values as float32, converted where the tensor has half precision.
  const float* as_float_data(const char* name, const Tensor& tensor) {
    if (tensor.scalar_type() == ScalarType::Float) return static_cast<const float*>(data(name, tensor));
    expect_device(name, tensor);
    return data_of<const float>(own(torch::stable::contiguous(torch::stable::to(tensor, ScalarType::Float))));
  }

  Indices indices(const char* name, const Tensor& tensor) {
    const ScalarType type = tensor.scalar_type();
    if (type != ScalarType::Int && type != ScalarType::Long) fail(name, " is neither int32 nor int64: convert it.");
    return {data(name, tensor), type == ScalarType::Long};
  }

 private:
  const bool is_cpu_;
  const int32_t device_index_;
  std::vector<Tensor> copies_;

  const Tensor& own(Tensor copy) {
    copies_.push_back(std::move(copy));
    return copies_.back();
  }
};

}  // namespace dendritic_bert
