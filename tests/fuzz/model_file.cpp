// Bytes that say they are a model: opened, and used if they are taken for one.
#include <stdlib.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/engine/model.h"
#include "input.h"

namespace {

using dendritic_bert::engine::checksum;
using dendritic_bert::engine::Model;
using dendritic_bert::engine::ModelFile;

constexpr size_t header_bytes = 32, size_place = 16, checksum_place = 24;  // docs/engine.md

struct Free {
  void operator()(char* bytes) const { free(bytes); }
};

// The input where a model must lie, with the size and the checksum that it has: else hardly one would be read.
std::unique_ptr<char, Free> signed_copy(const uint8_t* data, size_t size) {
  void* memory = nullptr;
  dendritic_bert::fuzz::check(posix_memalign(&memory, ModelFile::alignment, size) == 0);
  auto* bytes = static_cast<char*>(memory);
  if (size) std::memcpy(bytes, data, size);
  if (size >= header_bytes) {
    const uint64_t num_bytes = size, sum = checksum({bytes + header_bytes, size - header_bytes});
    std::memcpy(bytes + size_place, &num_bytes, sizeof num_bytes);
    std::memcpy(bytes + checksum_place, &sum, sizeof sum);
  }
  return std::unique_ptr<char, Free>(bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = signed_copy(data, size);
  std::string error;
  const auto model = Model::read({bytes.get(), size}, error);
  dendritic_bert::fuzz::check(bool(model) == error.empty());
  if (!model) return 0;
  const std::string_view views[] = {"", "the quick brown fox", "caf\u00e9 [SEP] \u4e16\u754c \xff\U0001f600",
                                    "a b c d e f g h i j k l m n o p q r s t u v w x y z"};
  dendritic_bert::engine::Texts texts;
  texts.views = views;
  texts.size = sizeof views / sizeof *views;
  std::vector<float> scores(texts.size * model->num_labels());
  std::vector<int32_t> labels(texts.size);
  model->classify(texts, 1, model->scoring(), scores.data(), labels.data());
  return 0;
}
