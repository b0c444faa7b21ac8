// The tables of a model in its file, and the kernels of csrc/cpu on them.
#pragma once

#include <cstdint>
#include <vector>

#include "../cpu/window_int8_arguments.h"
#include "model_file.h"

namespace dendritic_bert::engine {

// In which of its forms a model is computed; the codes in the file. kernels/contract.py describes the tables of each.
enum class Form : int { full_width, folded, windows, windows_int8 };

struct Tables {
  Form form = Form::full_width;
  Pooling pooling = Pooling::mean_masked;
  int64_t vocab_size = 0, num_types = 0, positions_stride = 0;
  int64_t num_positions = 0;  // the longest row
  int64_t elements_per_token = 0;
  Table full_width;
  Folded folded = {};
  Int8Windows windows = {};  // of windows in float, its shape is all
  Head head = {};
};

// Checks all that a kernel relies on, so that no file makes it read outside of a table.
Tables read_tables(ModelFile& file);

// Packed rows; token_types is null where all are 0. Ids and types must be in their tables, and rows short enough.
struct TokenRows {
  const int32_t *ids, *token_types;
  const int64_t* cu_seqlens;
  int64_t rows;
};

// The logits [rows, C], to the bits of the ops of kernels/ops.py on the same tables, on the calling thread.
void compute_logits(const Tables& tables, const TokenRows& rows, float* logits);

}  // namespace dendritic_bert::engine
