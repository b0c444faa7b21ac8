// The type dendritic_bert._engine.Model.
#include <cerrno>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "arrow.h"
#include "mapped_file.h"
#include "model.h"
#include "python_support.h"

namespace dendritic_bert::engine {
namespace {

// A model with what keeps its bytes: a mapped file, or an object of Python's.
struct ModelObject {
  PyObject_HEAD Model* model;
  MappedFile* file;
  PyObject* owner;
};

Model& model_of(PyObject* self) { return *reinterpret_cast<ModelObject*>(self)->model; }

PyObject* wrap(PyTypeObject* type, std::string_view bytes, const char* name, MappedFile* file, PyObject* owner,
               std::shared_ptr<SharedTokenizer> tokenizer) {
  std::string error;
  std::unique_ptr<Model> model = Model::read(bytes, error, std::move(tokenizer));
  if (!model) return PyErr_Format(PyExc_ValueError, "%s cannot be read: %s.", name, error.c_str());
  auto allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
  auto* object = reinterpret_cast<ModelObject*>(allocate(type, 0));
  if (!object) return nullptr;
  object->model = model.release();
  object->file = file;
  object->owner = owner;
  Py_XINCREF(owner);
  return reinterpret_cast<PyObject*>(object);
}

PyObject* make_model(PyTypeObject* type, PyObject* arguments, PyObject*) {
  unsigned long long address;
  Py_ssize_t size;
  PyObject *owner, *tokenizer = Py_None;
  if (!PyArg_ParseTuple(arguments, "KnO|O", &address, &size, &owner, &tokenizer)) return nullptr;
  if (address % ModelFile::alignment != 0)
    return PyErr_Format(PyExc_ValueError, "address is %llu, expected a multiple of 64.", address);
  try {
    std::shared_ptr<SharedTokenizer> shared;
    if (tokenizer != Py_None && !(shared = tokenizer_of(tokenizer))) return nullptr;
    return wrap(type, {reinterpret_cast<const char*>(uintptr_t(address)), size_t(size)}, "the model", nullptr, owner,
                std::move(shared));
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

PyObject* open_model(PyObject* type, PyObject* path) {
  PyObject* encoded;
  if (!PyUnicode_FSConverter(path, &encoded)) return nullptr;
  const Owned name(encoded);
  try {
    auto file = std::make_unique<MappedFile>();
    if (!file->open(PyBytes_AsString(name))) return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    PyObject* model = wrap(
        reinterpret_cast<PyTypeObject*>(type), file->bytes(), PyBytes_AsString(name), file.get(), nullptr, nullptr);
    if (model) file.release();
    return model;
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

void delete_model(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  auto* object = reinterpret_cast<ModelObject*>(self);
  delete object->model;
  delete object->file;
  Py_XDECREF(object->owner);
  reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

// The texts of an argument: a list, or what exports Arrow's C data interface.
class TextsArgument {
 public:
  // texts() is null, and an exception set, if there are none.
  explicit TextsArgument(PyObject* argument) {
    if (PyList_Check(argument)) {
      listed_.emplace(argument);
      texts_ = listed_->texts();
      return;
    }
    capsules_.emplace(PyObject_CallMethod(argument, "__arrow_c_array__", nullptr));
    if (!*capsules_) return;
    PyObject *schema, *array;
    if (!PyArg_ParseTuple(*capsules_, "OO", &schema, &array)) return;
    const auto* schema_data = static_cast<ArrowSchema*>(PyCapsule_GetPointer(schema, "arrow_schema"));
    const auto* array_data = static_cast<ArrowArray*>(PyCapsule_GetPointer(array, "arrow_array"));
    if (!schema_data || !array_data) return;
    const std::string error = read_arrow(*schema_data, *array_data, arrow_texts_);
    if (error.empty()) texts_ = &arrow_texts_;
    else PyErr_Format(PyExc_ValueError, "%s.", error.c_str());
  }

  const Texts* texts() const { return texts_; }

 private:
  std::optional<ListedTexts> listed_;
  std::optional<Owned> capsules_;
  Texts arrow_texts_;
  const Texts* texts_ = nullptr;
};

// The texts of a call, and the second ones of pairs.
class PairArguments {
 public:
  // `second` may be None. texts() is null, and an exception set, if they cannot be read, or if they are pairs and the
  // model has none.
  PairArguments(const Model& model, PyObject* first, PyObject* second) : first_(first) {
    if (first_.texts() && second != Py_None) {
      if (model.has_pairs()) second_.emplace(second);
      else PyErr_SetString(PyExc_ValueError, "the model is not for pairs of texts.");
    }
    is_valid_ =
        first_.texts() && (second == Py_None || (second_texts() && are_pairs(*first_.texts(), *second_texts())));
  }

  const Texts* texts() const { return is_valid_ ? first_.texts() : nullptr; }
  const Texts* second_texts() const { return second_ ? second_->texts() : nullptr; }
  size_t num_bytes() const { return texts()->num_bytes + (second_texts() ? second_texts()->num_bytes : 0); }

 private:
  TextsArgument first_;
  std::optional<TextsArgument> second_;
  bool is_valid_;
};

template <class T>
PyObject* make_bytearray(size_t size) {
  return PyByteArray_FromStringAndSize(nullptr, Py_ssize_t(size * sizeof(T)));
}

template <class T>
T* data_of(PyObject* bytearray) {
  return reinterpret_cast<T*>(PyByteArray_AsString(bytearray));
}

static_assert(sizeof(long long) == sizeof(int64_t));  // as which Py_BuildValue reads the numbers of an Outcome

PyObject* logits(PyObject* self, PyObject* arguments) {
  PyObject *first, *second = Py_None;
  Py_ssize_t threads;
  if (!PyArg_ParseTuple(arguments, "On|O", &first, &threads, &second)) return nullptr;
  const Model& model = model_of(self);
  try {
    const PairArguments given(model, first, second);
    const Texts* texts = given.texts();
    if (!texts) return nullptr;
    const Owned made(make_bytearray<float>(texts->size * model.num_labels()));
    if (!made) return nullptr;
    Outcome outcome;
    {
      auto* const values = data_of<float>(made);
      const Unlocked unlocked(given.num_bytes());
      outcome = model.classify(*texts, size_t(threads), values, given.second_texts());
    }
    return Py_BuildValue("OLLL", made.object, outcome.num_truncated, outcome.longest_row, outcome.first_not_finite);
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

PyObject* scores(PyObject* self, PyObject* arguments) {
  PyObject *first, *second = Py_None;
  Py_ssize_t threads;
  int function;
  float temperature;
  if (!PyArg_ParseTuple(arguments, "Onif|O", &first, &threads, &function, &temperature, &second)) return nullptr;
  const Model& model = model_of(self);
  try {
    const PairArguments given(model, first, second);
    const Texts* texts = given.texts();
    if (!texts) return nullptr;
    const Owned made(make_bytearray<float>(texts->size * model.num_labels())),
        labels(make_bytearray<int32_t>(texts->size));
    if (!made || !labels) return nullptr;
    Outcome outcome;
    {
      auto* const values = data_of<float>(made);
      auto* const of_texts = data_of<int32_t>(labels);
      const Unlocked unlocked(given.num_bytes());
      outcome = model.classify(*texts, size_t(threads), Scoring{ScoreFunction(function), temperature}, values, of_texts,
                               given.second_texts());
    }
    return Py_BuildValue(
        "(OO)LLL", made.object, labels.object, outcome.num_truncated, outcome.longest_row, outcome.first_not_finite);
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

// A new reference to a list of what make(i) gives for i < size; null if one is null.
template <class Make>
PyObject* make_list(size_t size, const Make& make) {
  Owned list(PyList_New(Py_ssize_t(size)));
  for (size_t i = 0; list && i < size; ++i) {
    PyObject* item = make(i);
    if (!item || PyList_SetItem(list, Py_ssize_t(i), item) < 0) return nullptr;
  }
  return list.release();
}

PyObject* make_answer(PyObject* label_key, PyObject* label, PyObject* score_key, float score) {
  Owned answer(PyDict_New());
  const Owned number(PyFloat_FromDouble(double(score)));
  const bool is_made = answer && label && number && PyDict_SetItem(answer, label_key, label) == 0 &&
                       PyDict_SetItem(answer, score_key, number) == 0;
  return is_made ? answer.release() : nullptr;
}

PyObject* answers(PyObject* self, PyObject* arguments) {
  PyObject *list, *names;
  Py_ssize_t threads;
  int function;
  float temperature;
  if (!PyArg_ParseTuple(
          arguments, "O!nifO!", &PyList_Type, &list, &threads, &function, &temperature, &PyList_Type, &names))
    return nullptr;
  const Model& model = model_of(self);
  const size_t columns = model.num_labels();
  try {
    const ListedTexts listed(list);
    const Texts* texts = listed.texts();
    if (!texts) return nullptr;
    std::vector<float> scores(texts->size * columns);
    std::vector<int32_t> labels(texts->size);
    Outcome outcome;
    {
      const Unlocked unlocked(texts->num_bytes);
      outcome = model.classify(
          *texts, size_t(threads), Scoring{ScoreFunction(function), temperature}, scores.data(), labels.data());
    }
    if (outcome.longest_row || outcome.first_not_finite >= 0) return Py_BuildValue("");
    const Owned label_key(PyUnicode_InternFromString("label")), score_key(PyUnicode_InternFromString("score"));
    const Owned made(make_list(texts->size, [&](size_t i) {
      return make_answer(
          label_key, PyList_GetItem(names, labels[i]), score_key, scores[i * columns + size_t(labels[i])]);
    }));
    return made ? Py_BuildValue("OL", made.object, outcome.num_truncated) : nullptr;
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

PyObject* list_names(const std::vector<std::string>& names) {
  return make_list(names.size(), [&](size_t i) {
    return PyUnicode_DecodeUTF8(names[i].data(), Py_ssize_t(names[i].size()), "replace");
  });
}

PyObject* labels(PyObject* self, void*) { return list_names(model_of(self).labels()); }

PyObject* text_columns(PyObject* self, void*) { return list_names(model_of(self).text_columns()); }

PyObject* num_positions(PyObject* self, void*) { return PyLong_FromLongLong(model_of(self).num_positions()); }

PyObject* has_pairs(PyObject* self, void*) { return PyBool_FromLong(model_of(self).has_pairs()); }

PyObject* scoring(PyObject* self, void*) {
  const Scoring& of_model = model_of(self).scoring();
  return Py_BuildValue("id", int(of_model.function), double(of_model.temperature));
}

PyMethodDef methods[] = {
    {"open", open_model, METH_O | METH_CLASS, "open(path) -> the model in a file. Raises OSError and ValueError."},
    {"logits", logits, METH_VARARGS,
     "logits(texts, threads, second_texts=None) -> (logits, num_truncated, longest_row, not_finite)"},
    {"scores", scores, METH_VARARGS,
     "scores(texts, threads, function, temperature, second_texts=None) -> "
     "((scores, labels), num_truncated, longest_row, not_finite)"},
    {"answers", answers, METH_VARARGS,
     "answers(texts, threads, function, temperature, labels) -> (answers, num_truncated)"},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef properties[] = {
    {"labels", labels, nullptr, "The names of the labels.", nullptr},
    {"text_columns", text_columns, nullptr,
     "The columns whose texts it was trained on: none that is known, one, or two of pairs.", nullptr},
    {"num_positions", num_positions, nullptr, "The longest row of its tables.", nullptr},
    {"has_pairs", has_pairs, nullptr, "Whether it takes pairs of texts.", nullptr},
    {"scoring", scoring, nullptr, "The code of the score function, the temperature.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(make_model)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(delete_model)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {0, nullptr}};

}  // namespace

PyType_Spec model_spec = {"dendritic_bert._engine.Model", sizeof(ModelObject), 0, Py_TPFLAGS_DEFAULT, slots};

}  // namespace dendritic_bert::engine
