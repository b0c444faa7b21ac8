// A model in memory: raw text to logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model_file.h"
#include "scores.h"
#include "tables.h"
#include "texts.h"
#include "workspaces.h"

namespace dendritic_bert::engine {

// What became of the texts of a call.
struct Outcome {
  int64_t num_truncated = 0;
  int64_t longest_row = 0;        // of those that are longer than the tables; 0 if none is, and else no logit counts
  int64_t first_not_finite = -1;  // the first text with a logit that is NaN or infinite
};

// Immutable but for the workspaces, and shared by threads.
class Model {
 public:
  // Reads a file, whose bytes must outlive the model. Null, and what is wrong with it, if it is no model. With a
  // tokenizer that others use, too, that of the file is not read, and need not be there.
  static std::unique_ptr<Model> read(std::string_view bytes, std::string& error,
                                     std::shared_ptr<SharedTokenizer> tokenizer = nullptr);

  const std::vector<std::string>& labels() const { return labels_; }
  // Whose texts it was trained on: none that is known, one, or two of pairs.
  const std::vector<std::string>& text_columns() const { return text_columns_; }
  const Scoring& scoring() const { return scoring_; }
  size_t num_labels() const { return size_t(tables_.head.num_labels); }
  int64_t num_positions() const { return tables_.num_positions; }
  bool has_pairs() const { return has_pairs_; }

  // The logits [texts.size, C] on at most `threads` threads, to the same bits for any number of them. `second_texts`
  // are as many, of pairs, for a model that has them; null for single texts.
  Outcome classify(const Texts& texts, size_t threads, float* logits, const Texts* second_texts = nullptr) const {
    return classify(texts, second_texts, threads, nullptr, logits, nullptr);
  }
  // The scores [texts.size, C] instead, and the label [texts.size] with the highest one.
  Outcome classify(const Texts& texts, size_t threads, const Scoring& scoring, float* scores, int32_t* labels,
                   const Texts* second_texts = nullptr) const {
    return classify(texts, second_texts, threads, &scoring, scores, labels);
  }

 private:
  Model(ModelFile& file, std::shared_ptr<SharedTokenizer> tokenizer);
  Outcome classify(const Texts& texts, const Texts* second_texts, size_t threads, const Scoring* scoring, float* values,
                   int32_t* labels) const;
  void classify_block(const Texts& texts, const Texts* second_texts, size_t first, size_t last, Workspace& workspace,
                      Outcome& outcome, float* logits) const;

  Tables tables_;
  std::shared_ptr<SharedTokenizer> tokenizer_;
  Truncation truncation_ = {};
  bool has_pairs_ = false;
  std::vector<std::string> labels_, text_columns_;
  Scoring scoring_;
};

}  // namespace dendritic_bert::engine
