// From arguments to a kernel: its instance, grid, block and shared memory. One instance serves a word type and a shape;
// five shapes are exact for the usual hidden sizes, three serve other multiples of 8, one the rest.
#pragma once

#include <cstddef>
#include <sstream>
#include <stdexcept>

#include "backward.cuh"
#include "forward.cuh"
#include "plan.h"
#include "token_logits.cuh"

struct Launch {
  const char* name;
  const Tokens& tokens;
  int hidden_size;
  cudaStream_t stream;

  [[noreturn]] void fail(const char* reason) const {
    std::ostringstream message;
    message << "the CUDA kernel " << name << " could not be launched for " << tokens.rows << " rows, " << tokens.total
            << " tokens, hidden size " << hidden_size << ": " << reason << ".";
    throw std::runtime_error(message.str());
  }

  void check(cudaError_t error) const {
    if (error != cudaSuccess) fail(cudaGetErrorString(error));
  }

  template <class Kernel, class Arguments>
  void operator()(Kernel kernel, int64_t blocks, int splits, int threads, size_t shared_bytes,
                  const Arguments& arguments) const {
    if (blocks == 0) return;
    if (blocks > INT32_MAX) fail("more than 2^31 - 1 blocks, split the batch");
    if (shared_bytes > 32 * 1024)  // with the static part, more than the 48 KB that need no leave
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
    LAUNCH(kernel, dim3(unsigned(blocks), unsigned(splits)), dim3(unsigned(threads)), shared_bytes, stream, arguments);
    check(cudaGetLastError());
  }
};

// Calls body with a value of the C++ type of a word: of parameters, and of tables which may have 8 bits too.
template <class Body>
void with_parameter(WordType type, const Body& body) {
  switch (type) {
    case WordType::bfloat16: return body(__nv_bfloat16{});
    case WordType::float16: return body(__half{});
    default: return body(float{});
  }
}

template <class Body>
void with_table_word(WordType type, const Body& body) {
  switch (type) {
    case WordType::int8: return body(int8_t{});
    case WordType::float8_e4m3: return body(__nv_fp8_e4m3{});
    default: return with_parameter(type, body);
  }
}

// Calls body(Shape) with the shape for a hidden size; `aligned` where 16-byte loads may serve.
template <class Body>
void with_shape(int hidden_size, bool aligned, const Body& body) {
  if (!aligned || hidden_size % 8 || hidden_size > warp_channels) return body(Shape<32, 2, Width::any>{});
  switch (hidden_size) {
    case 128: return body(Shape<16, 1, Width::exact>{});
    case 256: return body(Shape<32, 1, Width::exact>{});
    case 512: return body(Shape<32, 2, Width::exact>{});
    case 768: return body(Shape<32, 3, Width::exact>{});
    case 1024: return body(Shape<32, 4, Width::exact>{});
  }
  if (hidden_size < 256) return body(Shape<32, 1, Width::multiple_of_8>{});
  if (hidden_size < 512) return body(Shape<32, 2, Width::multiple_of_8>{});
  return body(Shape<32, 4, Width::multiple_of_8>{});
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
inline bool is_aligned(const Table& table) { return is_aligned(table.word) && is_aligned(table.context); }

inline size_t sum_bytes(const Plan& plan, int hidden_size, bool kept) {
  const int rows = rows_of_block(plan, hidden_size), writers = hidden_size > warp_channels ? 1 : plan.warps_per_row;
  return sizeof(float) * size_t(rows * writers) * size_t((hidden_size + 3) / 4 * 4) * (kept ? 2 : 1);
}

inline int64_t blocks_of(const Plan& plan, const Tokens& tokens, int hidden_size) {
  const int rows = rows_of_block(plan, hidden_size);
  return (tokens.rows + rows - 1) / rows;
}

template <class Word>
void launch_logits(const LogitsArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size, outputs = (1 + arguments.head.num_dendrites) * arguments.head.num_labels;
  const Launch launch{"dsn_logits", arguments.tokens, hidden_size, stream};
  const size_t shared_bytes = sum_bytes(arguments.plan, hidden_size, false) +
      sizeof(float) * size_t(rows_of_block(arguments.plan, hidden_size)) * size_t(outputs);
  with_shape(hidden_size, is_aligned(arguments.table) && is_aligned(arguments.head.weight), [&](auto shape) {
    launch(logits_kernel<Word, decltype(shape)>, blocks_of(arguments.plan, arguments.tokens, hidden_size),
           arguments.plan.splits, 32 * warps_of_block(hidden_size), shared_bytes, arguments);
  });
}

template <class Word>
void launch_token_logits(const TokenLogitsArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size, warps = warps_of_block(hidden_size);
  const Launch launch{"dsn_token_logits", arguments.tokens, hidden_size, stream};
  with_shape(hidden_size, is_aligned(arguments.table) && is_aligned(arguments.head.weight), [&](auto shape) {
    const size_t groups = size_t(warps) * decltype(shape)::groups;
    launch(token_logits_kernel<Word, decltype(shape)>, blocks_of(arguments.plan, arguments.tokens, hidden_size),
           arguments.plan.splits, 32 * warps, sizeof(float) * groups * size_t(arguments.head.num_dendrites), arguments);
  });
}

template <class Word>
void launch_embed_pool(const ForwardArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size;
  const Launch launch{"embed_pool", arguments.tokens, hidden_size, stream};
  with_shape(hidden_size, is_aligned(arguments.table), [&](auto shape) {
    launch(embed_pool_kernel<Word, decltype(shape)>, blocks_of(arguments.plan, arguments.tokens, hidden_size),
           arguments.plan.splits, 32 * warps_of_block(hidden_size),
           sum_bytes(arguments.plan, hidden_size, arguments.dropout.embed_threshold > 0), arguments);
  });
}

template <class Word>
void launch_context(const ContextArguments& arguments, const Tokens& tokens, cudaStream_t stream) {
  const int64_t size = arguments.num_types * arguments.num_positions * arguments.hidden_size;
  const Launch launch{"embed_pool's context table", tokens, arguments.hidden_size, stream};
  launch(context_kernel<Word>, std::min<int64_t>((size + 255) / 256, 65536), 1, 256, 0, arguments);
}

template <class Word>
void launch_token_gradients(const BackwardArguments& arguments, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size;
  const Launch launch{"embed_pool_backward", arguments.tokens, hidden_size, stream};
  const bool aligned = is_aligned(arguments.table) && is_aligned(arguments.d_word) && is_aligned(arguments.d_context);
  with_shape(hidden_size, aligned, [&](auto shape) {
    // One token at a time: the dropout mask and G need the registers.
    launch(token_gradient_kernel<Word, typename decltype(shape)::OneByOne>, blocks_of(arguments.plan, arguments.tokens, hidden_size), 1,
           32 * warps_of_block(hidden_size), sum_bytes(arguments.plan, hidden_size, false), arguments);
  });
}

inline int64_t run_chunks(int64_t num_tokens) { return (num_tokens + run_chunk - 1) / run_chunk; }

template <class Word>
void launch_runs(const RunArguments& arguments, const Tokens& tokens, cudaStream_t stream) {
  const int hidden_size = arguments.table.hidden_size;
  const Launch launch{"embed_pool_backward's sums over ids", tokens, hidden_size, stream};
  const int64_t chunks = run_chunks(arguments.num_tokens);
  with_shape(hidden_size, is_aligned(arguments.table), [&](auto shape) {
    const int chunks_of_block = block_warps * decltype(shape)::groups;
    launch(run_kernel<Word, decltype(shape)>, (chunks + chunks_of_block - 1) / chunks_of_block,
           slices_of<decltype(shape)>(hidden_size), 32 * block_warps, 0, arguments);
  });
  launch(join_kernel, chunks, 1, 128, 0, arguments);
}
