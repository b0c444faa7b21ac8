// What the Python types of the engine share.
#pragma once

#include "../common/python_support.h"

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "workspaces.h"

namespace dendritic_bert::engine {

// The texts of a list, which is kept as a tuple, because another thread may change it.
class ListedTexts {
 public:
  // An exception is set, and texts() null, for what is no str of UTF-8 or longer than the tokenizer takes.
  explicit ListedTexts(PyObject* list);

  const Texts* texts() const { return is_valid_ ? &texts_ : nullptr; }

 private:
  Owned tuple_;
  std::vector<std::string_view> views_;
  Texts texts_;
  bool is_valid_ = false;
};

// Whether there are as many second texts; else an exception is set.
bool are_pairs(const Texts& texts, const Texts& second_texts);

// What an object of the type dendritic_bert._engine.Tokenizer holds; null, and an exception set, for any other.
std::shared_ptr<SharedTokenizer> tokenizer_of(PyObject* object);

// The type dendritic_bert._engine.Model.
extern PyType_Spec model_spec;

}  // namespace dendritic_bert::engine
