// The Python module dendritic_bert._engine, in Python's limited API of version 3.10. It knows no torch and no numpy.
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model_file.h"
#include "python_support.h"
#include "scores.h"
#include "workspaces.h"

namespace dendritic_bert::engine {

// The bytes of a str, which stay valid as long as it lives. {nullptr, 0} and an exception if it holds a lone surrogate.
static std::string_view utf8_of(PyObject* text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text, &size);
  return {bytes, bytes ? size_t(size) : 0};
}

// Whether a text is short enough for the tokenizer; else an exception is set.
static bool is_short(std::string_view text, Py_ssize_t number) {
  if (text.size() <= Tokenizer::most_text_bytes) return true;
  PyErr_Format(PyExc_ValueError, "texts[%zd] has %zu bytes, expected at most %zu: cut it.", number, text.size(),
               Tokenizer::most_text_bytes);
  return false;
}

ListedTexts::ListedTexts(PyObject* list) : tuple_(PyList_AsTuple(list)) {
  if (!tuple_) return;
  const Py_ssize_t size = PyTuple_Size(tuple_);
  views_.reserve(size_t(size));
  for (Py_ssize_t i = 0; i < size; ++i) {
    const std::string_view view = utf8_of(PyTuple_GetItem(tuple_, i));
    views_.push_back(view);
    if (!view.data()) return;
    texts_.num_bytes += view.size();
    if (!is_short(view, i)) return;
  }
  texts_.size = size_t(size);
  texts_.views = views_.data();
  is_valid_ = true;
}

bool are_pairs(const Texts& texts, const Texts& second_texts) {
  if (texts.size == second_texts.size) return true;
  PyErr_Format(PyExc_ValueError, "first has %zu texts and second %zu: pass one of each for every pair.", texts.size,
               second_texts.size);
  return false;
}

namespace {

struct TokenizerObject {
  PyObject_HEAD std::shared_ptr<SharedTokenizer>* shared;
};

// An id, or -1 and an exception.
int32_t read_id(PyObject* number) {
  const long id = PyLong_AsLong(number);
  if (!PyErr_Occurred() && (id < 0 || id > std::numeric_limits<int32_t>::max()))
    PyErr_Format(PyExc_OverflowError, "the id %ld of a token is not between 0 and 2147483647.", id);
  return PyErr_Occurred() ? -1 : int32_t(id);
}

bool read_vocabulary(PyObject* vocabulary, std::vector<VocabularyEntry>& entries) {
  PyObject *token, *id;
  Py_ssize_t position = 0;
  while (PyDict_Next(vocabulary, &position, &token, &id)) {
    entries.push_back({utf8_of(token), read_id(id)});
    if (PyErr_Occurred()) return false;
  }
  return true;
}

bool read_added_tokens(PyObject* tokens, std::vector<AddedToken>& added) {
  for (Py_ssize_t i = 0; i < PyTuple_Size(tokens); ++i) {
    const char* content;
    Py_ssize_t size;
    int id, is_text, takes_before, takes_behind;
    if (!PyArg_ParseTuple(
            PyTuple_GetItem(tokens, i), "s#ippp", &content, &size, &id, &is_text, &takes_before, &takes_behind))
      return false;
    if (size)
      added.push_back({std::string(content, size_t(size)), id, bool(is_text), bool(takes_before), bool(takes_behind)});
  }
  return true;
}

bool read_ids(PyObject* values, std::vector<int32_t>& ids) {
  for (Py_ssize_t i = 0; i < PyTuple_Size(values); ++i) ids.push_back(read_id(PyTuple_GetItem(values, i)));
  return !PyErr_Occurred();
}

// The parts of a pair: a tuple of (id, type), in which the id is -1 for a text.
bool read_pair(PyObject* parts, std::vector<PairPart>& pair) {
  for (Py_ssize_t i = 0; i < PyTuple_Size(parts); ++i) {
    PairPart part;
    if (!PyArg_ParseTuple(PyTuple_GetItem(parts, i), "ii", &part.id, &part.type)) return false;
    pair.push_back(part);
  }
  if (pair.empty() || Tokenizer::is_pair(pair)) return true;
  PyErr_Format(PyExc_ValueError, "pair has not two texts, whose id is %d.", PairPart::a_text);
  return false;
}

PyObject* make_tokenizer(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  static const char* names[] = {
      "vocabulary",       "unknown_id", "continuing_prefix", "most_characters", "clean_text", "handle_chinese_chars",
      "strip_accents",    "lowercase",  "added_tokens",      "prefix",          "suffix",     "pair",
      "log2_cache_lines", nullptr};
  PyObject *vocabulary, *added_tokens, *prefix_ids, *suffix_ids, *pair_parts = nullptr;
  const char* continuing_prefix;
  Py_ssize_t continuing_size, most_characters;
  int unknown_id, clean_text, handle_chinese_chars, strip_accents, lowercase;
  unsigned log2_cache_lines = Tokenizer::default_log2_cache_lines;
  if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!is#nppppO!O!O!|O!I", const_cast<char**>(names), &PyDict_Type,
                                   &vocabulary, &unknown_id, &continuing_prefix, &continuing_size, &most_characters,
                                   &clean_text, &handle_chinese_chars, &strip_accents, &lowercase, &PyTuple_Type,
                                   &added_tokens, &PyTuple_Type, &prefix_ids, &PyTuple_Type, &suffix_ids, &PyTuple_Type,
                                   &pair_parts, &log2_cache_lines))
    return nullptr;
  if (log2_cache_lines < 1 || log2_cache_lines > 24)
    return PyErr_Format(PyExc_ValueError, "log2_cache_lines is %u, expected 1 to 24.", log2_cache_lines);
  try {
    std::vector<VocabularyEntry> entries;
    std::vector<AddedToken> added;
    std::vector<int32_t> prefix, suffix;
    std::vector<PairPart> pair;
    if (!read_vocabulary(vocabulary, entries) || !read_added_tokens(added_tokens, added) ||
        !read_ids(prefix_ids, prefix) || !read_ids(suffix_ids, suffix) || (pair_parts && !read_pair(pair_parts, pair)))
      return nullptr;
    WordPieceSettings pieces = {
        std::string(continuing_prefix, size_t(continuing_size)), unknown_id, size_t(most_characters)};
    NormalizerSettings normalizer = {
        bool(clean_text), bool(handle_chinese_chars), bool(strip_accents), bool(lowercase)};
    auto shared = std::make_unique<std::shared_ptr<SharedTokenizer>>(std::make_shared<SharedTokenizer>(
        Tokenizer(normalizer, Vocabulary(entries, std::move(pieces)), AddedTokens(std::move(added)), std::move(prefix),
                  std::move(suffix), std::move(pair), log2_cache_lines)));
    auto allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
    auto* object = reinterpret_cast<TokenizerObject*>(allocate(type, 0));
    if (object) object->shared = shared.release();
    return reinterpret_cast<PyObject*>(object);
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

void delete_tokenizer(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<TokenizerObject*>(self)->shared;
  reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

template <class T>
PyObject* copy_to_bytearray(const std::vector<T>& values, size_t size) {
  return PyByteArray_FromStringAndSize(reinterpret_cast<const char*>(values.data()), Py_ssize_t(size * sizeof(T)));
}

SharedTokenizer& shared_of(PyObject* self) { return **reinterpret_cast<TokenizerObject*>(self)->shared; }

// Whether a row may be so short; else an exception is set.
bool has_room(Py_ssize_t max_length, size_t num_special_tokens) {
  if (max_length >= Py_ssize_t(num_special_tokens)) return true;
  PyErr_Format(
      PyExc_ValueError, "max_length is %zd, the special tokens alone take %zu.", max_length, num_special_tokens);
  return false;
}

PyObject* encode(PyObject* self, PyObject* arguments) {
  PyObject* list;
  Py_ssize_t max_length;
  int keeps_end;
  if (!PyArg_ParseTuple(arguments, "O!np", &PyList_Type, &list, &max_length, &keeps_end)) return nullptr;
  SharedTokenizer& shared = shared_of(self);
  const Tokenizer& tokenizer = shared.tokenizer;
  if (!has_room(max_length, tokenizer.num_special_tokens())) return nullptr;
  try {
    const ListedTexts listed(list);
    const Texts* texts = listed.texts();
    if (!texts) return nullptr;
    const Workspaces::Borrowed workspace(shared.workspaces);
    {
      const Unlocked unlocked(texts->num_bytes);
      tokenizer.encode(*texts, 0, texts->size, {size_t(max_length), bool(keeps_end)}, *workspace);
    }
    const PackedRows& rows = workspace->rows;
    const Owned ids(copy_to_bytearray(rows.ids, rows.num_ids));
    const Owned cu_seqlens(copy_to_bytearray(rows.cu_seqlens, rows.cu_seqlens.size()));
    if (!ids || !cu_seqlens) return nullptr;
    return Py_BuildValue("OOn", ids.object, cu_seqlens.object, Py_ssize_t(rows.num_truncated));
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

PyObject* encode_pairs(PyObject* self, PyObject* arguments) {
  PyObject *list, *second_list;
  Py_ssize_t max_length;
  int keeps_end;
  if (!PyArg_ParseTuple(arguments, "O!O!np", &PyList_Type, &list, &PyList_Type, &second_list, &max_length, &keeps_end))
    return nullptr;
  SharedTokenizer& shared = shared_of(self);
  const Tokenizer& tokenizer = shared.tokenizer;
  if (!tokenizer.has_pairs()) return PyErr_Format(PyExc_ValueError, "the tokenizer was made without a pair.");
  if (!has_room(max_length, tokenizer.num_special_tokens_of_pair())) return nullptr;
  try {
    const ListedTexts listed(list);
    const Texts* texts = listed.texts();
    if (!texts) return nullptr;
    const ListedTexts second_listed(second_list);
    const Texts* second_texts = second_listed.texts();
    if (!second_texts || !are_pairs(*texts, *second_texts)) return nullptr;
    const Workspaces::Borrowed workspace(shared.workspaces);
    {
      const Unlocked unlocked(texts->num_bytes + second_texts->num_bytes);
      tokenizer.encode_pairs(*texts, *second_texts, 0, texts->size, {size_t(max_length), bool(keeps_end)}, *workspace);
    }
    const PackedRows& rows = workspace->rows;
    const Owned ids(copy_to_bytearray(rows.ids, rows.num_ids));
    const Owned cu_seqlens(copy_to_bytearray(rows.cu_seqlens, rows.cu_seqlens.size()));
    const Owned token_types(copy_to_bytearray(rows.token_types, rows.token_types.size()));
    if (!ids || !cu_seqlens || !token_types) return nullptr;
    return Py_BuildValue("OOOn", ids.object, cu_seqlens.object, token_types.object, Py_ssize_t(rows.num_truncated));
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

PyObject* spans(PyObject* self, PyObject* text) {
  const std::string_view view = utf8_of(text);
  if (!view.data() || !is_short(view, 0)) return nullptr;
  try {
    const std::vector<Span> found = shared_of(self).tokenizer.find_spans(view);
    return copy_to_bytearray(found, found.size());
  } catch (const std::bad_alloc&) { return PyErr_NoMemory(); }
}

PyMethodDef tokenizer_methods[] = {
    {"encode", encode, METH_VARARGS,
     "encode(texts, max_length, keeps_end) -> (input_ids, cu_seqlens, num_truncated)\n\n"
     "The rows of a list of str: bytearrays of int32 and of int64, and how many rows were cut to max_length. Raises "
     "UnicodeEncodeError for a lone surrogate, TypeError for what is no str."},
    {"encode_pairs", encode_pairs, METH_VARARGS,
     "encode_pairs(texts, second_texts, max_length, keeps_end) -> (input_ids, cu_seqlens, token_types, num_truncated)"},
    {"spans", spans, METH_O, "spans(text) -> (id, word, begin, end) of its tokens, a bytearray of int32"},
    {nullptr, nullptr, 0, nullptr}};

PyObject* largest_id(PyObject* self, void*) { return PyLong_FromLong(shared_of(self).tokenizer.largest_id()); }

PyGetSetDef tokenizer_properties[] = {{"largest_id", largest_id, nullptr, "The largest id of a token.", nullptr},
                                      {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot tokenizer_slots[] = {{Py_tp_new, reinterpret_cast<void*>(make_tokenizer)},
                                 {Py_tp_dealloc, reinterpret_cast<void*>(delete_tokenizer)},
                                 {Py_tp_methods, tokenizer_methods},
                                 {Py_tp_getset, tokenizer_properties},
                                 {0, nullptr}};
PyType_Spec tokenizer_spec = {
    "dendritic_bert._engine.Tokenizer", sizeof(TokenizerObject), 0, Py_TPFLAGS_DEFAULT, tokenizer_slots};

// Memory is passed as its address, because the limited API has buffers from version 3.11 on.
PyObject* checksum_of(PyObject*, PyObject* arguments) {
  unsigned long long address;
  Py_ssize_t size;
  if (!PyArg_ParseTuple(arguments, "Kn", &address, &size)) return nullptr;
  return PyLong_FromUnsignedLongLong(checksum({reinterpret_cast<const char*>(uintptr_t(address)), size_t(size)}));
}

PyObject* apply_scores(PyObject*, PyObject* arguments) {
  int function;
  float temperature;
  unsigned long long logits, scores;
  Py_ssize_t rows, columns;
  if (!PyArg_ParseTuple(arguments, "ifKKnn", &function, &temperature, &logits, &scores, &rows, &columns))
    return nullptr;
  {
    const Unlocked unlocked(size_t(rows) * size_t(columns) * sizeof(float));
    Scoring{ScoreFunction(function), temperature}.apply(reinterpret_cast<const float*>(uintptr_t(logits)), size_t(rows),
                                                        size_t(columns), reinterpret_cast<float*>(uintptr_t(scores)));
  }
  Py_INCREF(Py_None);
  return Py_None;
}

PyMethodDef functions[] = {
    {"checksum", checksum_of, METH_VARARGS, "checksum(address, size) -> XXH64 of memory, with seed 0"},
    {"apply_scores", apply_scores, METH_VARARGS,
     "apply_scores(function, temperature, logits, scores, rows, columns): from one address to another, float32"},
    {nullptr, nullptr, 0, nullptr}};

int add_types(PyObject* module) {
  for (PyType_Spec* spec : {&tokenizer_spec, &model_spec}) {
    const Owned type(PyType_FromSpec(spec));
    if (!type || PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(type.object)) < 0) return -1;
  }
  return 0;
}

PyModuleDef_Slot module_slots[] = {{Py_mod_exec, reinterpret_cast<void*>(add_types)}, {0, nullptr}};
PyModuleDef module_definition = {PyModuleDef_HEAD_INIT,
                                 "_engine",
                                 "Texts to token ids and to logits, in C++.",
                                 0,
                                 functions,
                                 module_slots,
                                 nullptr,
                                 nullptr,
                                 nullptr};

}  // namespace

std::shared_ptr<SharedTokenizer> tokenizer_of(PyObject* object) {
  if (PyType_GetSlot(Py_TYPE(object), Py_tp_new) == reinterpret_cast<void*>(make_tokenizer))
    return *reinterpret_cast<TokenizerObject*>(object)->shared;
  PyErr_SetString(PyExc_TypeError, "tokenizer is no Tokenizer of the engine.");
  return nullptr;
}

}  // namespace dendritic_bert::engine

PyMODINIT_FUNC PyInit__engine() { return PyModuleDef_Init(&dendritic_bert::engine::module_definition); }
