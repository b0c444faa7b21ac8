// What the extensions that know no torch share. They use Python's limited API of version 3.10.
#pragma once

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#include <Python.h>
#include <unistd.h>

#include <cstddef>
#include <utility>

namespace dendritic_bert {

// A reference that is given back at the end of its scope.
struct Owned {
  PyObject* object;
  explicit Owned(PyObject* object_) : object(object_) {}
  ~Owned() { Py_XDECREF(object); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  operator PyObject*() const { return object; }
  PyObject* release() { return std::exchange(object, nullptr); }
};

// Lets other threads of Python run until the end of its scope, if there is work enough. Another thread may hold the
// interpreter's lock for 5 ms before it hands it back, so that a few texts are not worth giving it away: these many
// bytes take about 10 us.
class Unlocked {
 public:
  explicit Unlocked(size_t num_bytes) : state_(num_bytes < 4096 ? nullptr : PyEval_SaveThread()) {}
  ~Unlocked() {
    try {
      if (state_) PyEval_RestoreThread(state_);
    } catch (...) {  // how glibc ends a daemon thread while Python up to 3.13 ends; 3.14 lets it wait as well
      while (true) pause();
    }
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace dendritic_bert
