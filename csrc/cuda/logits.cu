// Inference: every word type of a prepared table.
#include "launch.cuh"
#include "launch.h"

void logits(const LogitsArguments& arguments, void* stream) {
  with_table_word(arguments.table.word_type,
                  [&](auto word) { launch_logits<decltype(word)>(arguments, static_cast<cudaStream_t>(stream)); });
}
