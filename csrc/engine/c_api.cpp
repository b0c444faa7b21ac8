#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrow.h"
#include "dendritic_bert.h"
#include "mapped_file.h"
#include "model.h"

using dendritic_bert::engine::MappedFile;
using dendritic_bert::engine::Model;
using dendritic_bert::engine::ModelFile;
using dendritic_bert::engine::Outcome;
using dendritic_bert::engine::Texts;
using dendritic_bert::engine::Tokenizer;

struct dendritic_bert_model {
  std::unique_ptr<MappedFile> file;
  std::unique_ptr<Model> model;
};

namespace {

#ifdef DENDRITIC_BERT_NO_THREADS
#define OF_THREAD
#else
#define OF_THREAD thread_local
#endif
OF_THREAD std::string error_text;
OF_THREAD const char* last_error = "";

void set_error(std::string text) {
  error_text = std::move(text);
  last_error = error_text.c_str();
}

// Gives `failed` and keeps the error, or what `work` gives. No exception leaves a function of C, and to say that there
// is no memory takes none.
template <class Result, class Work>
Result guarded(Result failed, const Work& work) {
#ifdef __cpp_exceptions
  try {
    return work();
  } catch (...) {  // the engine itself throws nothing
    last_error = "there is not enough memory";
    return failed;
  }
#else
  (void)failed;
  return work();
#endif
}

dendritic_bert_model* read_model(std::string_view bytes, std::unique_ptr<MappedFile> file) {
  std::string error;
  std::unique_ptr<Model> model = Model::read(bytes, error);
  if (model) return new dendritic_bert_model{std::move(file), std::move(model)};
  set_error("the model cannot be read: " + error);
  return nullptr;
}

int64_t classify(const dendritic_bert_model* model, const Texts& texts, size_t threads, float* logits) {
  const Outcome outcome = model->model->classify(texts, threads, logits);
  if (outcome.longest_row)
    set_error("a text has " + std::to_string(outcome.longest_row) + " tokens, which is more than the model takes");
  else if (outcome.first_not_finite >= 0)
    set_error("text " + std::to_string(outcome.first_not_finite) + " has a logit that is NaN or infinite");
  else return outcome.num_truncated;
  return -1;
}

template <class Offset>
int64_t classify_offsets(const dendritic_bert_model* model, const char* bytes, size_t size, const Offset* offsets,
                         size_t num_texts, size_t threads, float* logits, const Offset* Texts::* member) {
  return guarded(int64_t(-1), [&]() -> int64_t {
    if (num_texts == 0) return 0;  // for which Arrow needs no offsets
    if (!dendritic_bert::engine::are_offsets(offsets, num_texts) || uint64_t(offsets[num_texts]) > size) {
      last_error = "the offsets fall, go beyond the bytes, or leave a text of more than 1 GiB";
      return -1;
    }
    Texts texts;
    texts.size = num_texts;
    texts.num_bytes = size_t(offsets[num_texts] - offsets[0]);
    texts.bytes = bytes;
    texts.*member = offsets;
    return classify(model, texts, threads, logits);
  });
}

}  // namespace

dendritic_bert_model* dendritic_bert_open(const char* path) {
  return guarded(static_cast<dendritic_bert_model*>(nullptr), [&]() -> dendritic_bert_model* {
    if (!path) {
      last_error = "path is null: name a model file";
      return nullptr;
    }
    auto file = std::make_unique<MappedFile>();
    if (!file->open(path)) {
      set_error(std::string(path) + " cannot be opened: " + std::strerror(errno));
      return nullptr;
    }
    const std::string_view bytes = file->bytes();
    return read_model(bytes, std::move(file));
  });
}

dendritic_bert_model* dendritic_bert_open_memory(const void* bytes, size_t size) {
  return guarded(static_cast<dendritic_bert_model*>(nullptr), [&]() -> dendritic_bert_model* {
    if (reinterpret_cast<uintptr_t>(bytes) % ModelFile::alignment != 0) {
      last_error = "the bytes of the model do not begin at a multiple of 64";
      return nullptr;
    }
    return read_model({static_cast<const char*>(bytes), size}, nullptr);
  });
}

void dendritic_bert_close(dendritic_bert_model* model) { delete model; }

size_t dendritic_bert_num_labels(const dendritic_bert_model* model) { return model->model->num_labels(); }

const char* dendritic_bert_label(const dendritic_bert_model* model, size_t label) {
  const std::vector<std::string>& labels = model->model->labels();
  return label < labels.size() ? labels[label].c_str() : nullptr;
}

int64_t dendritic_bert_classify(const dendritic_bert_model* model, const char* const* texts, const size_t* lengths,
                                size_t num_texts, size_t threads, float* logits) {
  return guarded(int64_t(-1), [&]() -> int64_t {
    std::vector<std::string_view> views;
    Texts of_call;
    for (size_t i = 0; i < num_texts; ++i) {
      if (lengths[i] > Tokenizer::most_text_bytes) {
        set_error("text " + std::to_string(i) + " has more than 1 GiB");
        return -1;
      }
      views.push_back({texts[i], lengths[i]});
      of_call.num_bytes += lengths[i];
    }
    of_call.size = num_texts;
    of_call.views = views.data();
    return classify(model, of_call, threads, logits);
  });
}

int64_t dendritic_bert_classify_blob(const dendritic_bert_model* model, const char* bytes, size_t size,
                                     const int32_t* offsets, size_t num_texts, size_t threads, float* logits) {
  return classify_offsets(model, bytes, size, offsets, num_texts, threads, logits, &Texts::offsets);
}

int64_t dendritic_bert_classify_large_blob(const dendritic_bert_model* model, const char* bytes, size_t size,
                                           const int64_t* offsets, size_t num_texts, size_t threads, float* logits) {
  return classify_offsets(model, bytes, size, offsets, num_texts, threads, logits, &Texts::large_offsets);
}

void dendritic_bert_scores(const dendritic_bert_model* model, const float* logits, size_t num_texts, float* scores) {
  guarded(0, [&] {
    model->model->scoring().apply(logits, num_texts, model->model->num_labels(), scores);
    return 0;
  });
}

const char* dendritic_bert_error(void) { return last_error; }
