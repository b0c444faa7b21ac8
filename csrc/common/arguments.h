// The types of arguments that the kernels of both extensions share. They are plain data: no header of torch or of CUDA.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define DENDRITIC_BERT_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DENDRITIC_BERT_HOST_DEVICE inline
#endif

namespace dendritic_bert {

// The codes of the last three are those of POOLINGS, ACTIVATIONS and WordGrad in kernels/contract.py.
enum class WordType : int { float32, bfloat16, float16, int8, float8_e4m3 };
enum class Pooling : int { mean_masked, mean_all, sum_all };
enum class Activation : int { sigmoid, tanh, relu, gelu };
enum class WordGradient : int { none, dense, sparse };

// An array of int32 or int64, read as it is; `data` is null where the argument is absent.
struct Indices {
  const void* data = nullptr;
  bool is_int64 = false;

  DENDRITIC_BERT_HOST_DEVICE int64_t operator[](int64_t i) const {
    return is_int64 ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

// The tokens of a call as the caller gives them, and the sizes of the tables that they index. B is the number of rows,
// T the number of tokens; padded rows have L columns each.
struct TokenArrays {
  Indices ids, token_types, positions;  // [B, L] or [T]
  const void* mask = nullptr;           // [B, L] integers of mask_bytes each; null where every token counts
  int mask_bytes = 0;
  Indices cu_seqlens;  // [B + 1]; absent where row b starts at token b * length
  int64_t rows = 0, length = 0, total = 0;
  Pooling pooling = Pooling::mean_masked;
  int64_t vocab_size = 0, num_types = 0, num_positions = 0;
};

}  // namespace dendritic_bert
