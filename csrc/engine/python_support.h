// What the Python types of the engine share. The module uses Python's limited API of version 3.10.
#pragma once

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#include <Python.h>

#include <cstddef>
#include <string_view>
#include <vector>

#include "tokenizer.h"

namespace dendritic_bert::engine {

// A reference that is given back at the end of its scope.
struct Owned {
  PyObject* object;
  explicit Owned(PyObject* object_) : object(object_) {}
  ~Owned() { Py_XDECREF(object); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  operator PyObject*() const { return object; }
  PyObject* release() {
    PyObject* given = object;
    object = nullptr;
    return given;
  }
};

// Lets other threads of Python run until the end of its scope, if there is work enough. Another thread may hold the
// interpreter's lock for 5 ms before it hands it back, so that a few texts are not worth giving it away: these many bytes
// take about 10 us.
class Unlocked {
 public:
  explicit Unlocked(size_t num_bytes) : state_(num_bytes < 4096 ? nullptr : PyEval_SaveThread()) {}
  ~Unlocked() {
    if (state_) PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

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

// The type dendritic_bert._engine.Model.
extern PyType_Spec model_spec;

}  // namespace dendritic_bert::engine
