// Offsets and lengths of any kind, to the functions of C and as an array of Arrow. DENDRITIC_BERT_FUZZ_MODEL names the
// file of a model.
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/engine/arrow.h"
#include "../../csrc/engine/dendritic_bert.h"
#include "input.h"

namespace {

using namespace dendritic_bert;
using fuzz::check;
using fuzz::Copy;

dendritic_bert_model* model() {
  static dendritic_bert_model* const opened = [] {
    const char* path = std::getenv("DENDRITIC_BERT_FUZZ_MODEL");
    dendritic_bert_model* made = dendritic_bert_open(path ? path : "");
    if (!made) std::fprintf(stderr, "DENDRITIC_BERT_FUZZ_MODEL: %s\n", dendritic_bert_error());
    return made;
  }();
  check(opened);
  return opened;
}

int64_t classify(const Copy<char>& bytes, const Copy<int32_t>& offsets, size_t threads, float* logits) {
  return dendritic_bert_classify_blob(
      model(), bytes.data.get(), bytes.size, offsets.data.get(), offsets.size - 1, threads, logits);
}

int64_t classify(const Copy<char>& bytes, const Copy<int64_t>& offsets, size_t threads, float* logits) {
  return dendritic_bert_classify_large_blob(
      model(), bytes.data.get(), bytes.size, offsets.data.get(), offsets.size - 1, threads, logits);
}

// What `read_arrow` takes of these buffers lies in them, as far as their sizes say: an array does not know that of its
// bytes.
template <class Offset>
void read_array(const Copy<char>& bytes, const Copy<Offset>& offsets, const Copy<char>& validity, int64_t skipped,
                int64_t null_count, const char* format) {
  ArrowSchema schema = {};
  schema.format = format;
  const void* buffers[] = {validity.size ? validity.data.get() : nullptr, offsets.data.get(), bytes.data.get()};
  ArrowArray array = {};
  array.length = int64_t(offsets.size) - 1 - skipped;
  array.offset = skipped;
  array.null_count = null_count;
  array.n_buffers = 3;
  array.buffers = buffers;
  engine::Texts texts;
  if (!engine::read_arrow(schema, array, texts).empty()) return;
  size_t num_bytes = 0;
  for (size_t i = 0; i < texts.size; ++i) {
    const std::string_view text = texts[i];
    check(text.size() <= engine::Tokenizer::most_text_bytes);
    num_bytes += text.size();
  }
  check(num_bytes == texts.num_bytes);
}

// Offsets as they come, or with the odd bit as lengths of up to 15 bytes, so that most of them are right.
template <class Offset>
std::vector<Offset> take_offsets(fuzz::Input& input, size_t count, bool are_lengths) {
  std::vector<Offset> offsets = {are_lengths ? Offset(input.take<uint8_t>() % 4) : input.take<Offset>()};
  while (offsets.size() <= count)
    offsets.push_back(are_lengths ? Offset(offsets.back() + input.take<uint8_t>() % 16) : input.take<Offset>());
  return offsets;
}

template <class Offset>
void run(fuzz::Input& input, bool are_lengths, size_t count, const char* format) {
  const auto skipped = int64_t(input.take<uint8_t>()), null_count = int64_t(input.take<uint8_t>()) - 1;
  const std::vector<Offset> taken = take_offsets<Offset>(input, count, are_lengths);
  const Copy<Offset> offsets(taken.data(), taken.size());
  const std::string_view rest = input.take_until('\xff'), bits = input.take_until('\xff');
  const Copy<char> bytes(rest.data(), rest.size()), no_bits("", 0), validity(bits.data(), bits.size());
  std::vector<float> logits(count * dendritic_bert_num_labels(model()) + 1, -1);
  const int64_t num_truncated = classify(bytes, offsets, 1, logits.data());
  check(num_truncated >= -1 && num_truncated <= int64_t(count) && logits.back() == -1);
  check(num_truncated >= 0 || *dendritic_bert_error());
  const bool has_bits = validity.size * 8 > count;
  read_array(bytes, offsets, has_bits ? validity : no_bits, skipped, null_count, format);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  const auto kind = input.take<uint8_t>();
  const size_t count = input.take<uint8_t>() % 80;
  if (kind & 1) run<int64_t>(input, kind & 2, count, kind & 4 ? "U" : "Z");
  else run<int32_t>(input, kind & 2, count, kind & 4 ? "u" : "z");
  return 0;
}
