// The Python module dendritic_bert._files, in Python's limited API of version 3.10. It knows no torch, numpy or
// pyarrow.
#include "../common/python_support.h"

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../common/arrow_c_data.h"
#include "record_scanner.h"
#include "row_formatter.h"
#include "text_column.h"

namespace dendritic_bert::files {
namespace {

// An exception of Python's, which is set.
struct PythonError {};

// What `function` gives, or nullptr and Python's exception for the one that it throws.
template <class Function>
PyObject* translate_exceptions(Function function) {
  try {
    return function();
  } catch (const PythonError&) { return nullptr; } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_Format(PyExc_ValueError, "%s.", error.what());
    return nullptr;
  }
}

PyObject* allocate(PyTypeObject* type) {
  return reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

template <class Object>
void delete_object(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<Object*>(self)->content;
  reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

// The types of this module, which are made once: a process has one of it.
PyTypeObject* text_column_type = nullptr;

// ---- TextColumn -----------------------------------------------------------------------------------------------------

struct TextColumnObject {
  PyObject_HEAD std::shared_ptr<const TextColumn>* content;
};

const TextColumn& column_of(PyObject* self) { return **reinterpret_cast<TextColumnObject*>(self)->content; }

PyObject* wrap_column(PyTypeObject* type, TextColumn&& column) {
  auto content =
      std::make_unique<std::shared_ptr<const TextColumn>>(std::make_shared<const TextColumn>(std::move(column)));
  PyObject* self = allocate(type);
  if (self) reinterpret_cast<TextColumnObject*>(self)->content = content.release();
  return self;
}

// Appends a str, or null for None; false and an exception for anything else.
bool append_object(TextColumn& column, PyObject* text) {
  if (text == Py_None) {
    column.append_null();
    return true;
  }
  Py_ssize_t size;
  const char* bytes = PyUnicode_AsUTF8AndSize(text, &size);
  if (!bytes) return false;
  column.append({bytes, size_t(size)});
  return true;
}

PyObject* make_text_column(PyTypeObject* type, PyObject* arguments, PyObject*) {
  PyObject* texts;
  if (!PyArg_ParseTuple(arguments, "O", &texts)) return nullptr;
  return translate_exceptions([&]() -> PyObject* {
    const Owned items(PySequence_Tuple(texts));
    if (!items) return nullptr;
    TextColumn column;
    for (Py_ssize_t i = 0; i < PyTuple_Size(items); ++i)
      if (!append_object(column, PyTuple_GetItem(items, i))) return nullptr;
    return wrap_column(type, std::move(column));
  });
}

Py_ssize_t text_column_length(PyObject* self) { return Py_ssize_t(column_of(self).size()); }

PyObject* text_column_null_count(PyObject* self, void*) { return PyLong_FromSize_t(column_of(self).null_count()); }

PyObject* text_column_nbytes(PyObject* self, void*) {
  const TextColumn& column = column_of(self);
  return PyLong_FromSize_t(column.bytes().size() + column.offsets().size() * sizeof(int32_t));
}

PyObject* text_column_to_pylist(PyObject* self, PyObject*) {
  const TextColumn& column = column_of(self);
  const std::vector<int32_t>& offsets = column.offsets();
  Owned list(PyList_New(Py_ssize_t(column.size())));
  if (!list) return nullptr;
  for (size_t i = 0; i < column.size(); ++i) {
    const bool is_null = column.validity() && !(column.validity()[i / 8] >> (i % 8) & 1);
    PyObject* text =
        is_null ? (Py_INCREF(Py_None), Py_None)
                : PyUnicode_DecodeUTF8(column.bytes().data() + offsets[i], offsets[i + 1] - offsets[i], "strict");
    if (!text || PyList_SetItem(list, Py_ssize_t(i), text)) return nullptr;
  }
  return list.release();
}

PyObject* text_column_iterate(PyObject* self) {
  const Owned list(text_column_to_pylist(self, nullptr));
  return list ? PyObject_GetIter(list) : nullptr;
}

// What an exported array keeps alive until it is released.
struct Exported {
  std::shared_ptr<const TextColumn> column;
  const void* buffers[3];
};

void release_array(ArrowArray* array) {
  delete static_cast<Exported*>(array->private_data);
  array->release = nullptr;
}

void release_schema(ArrowSchema* schema) { schema->release = nullptr; }

template <class Struct>
void delete_capsule(PyObject* capsule) {
  auto* content = static_cast<Struct*>(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
  if (content->release) content->release(content);
  delete content;
}

// A capsule that owns `content`.
template <class Struct>
PyObject* make_capsule(std::unique_ptr<Struct> content, const char* name) {
  PyObject* capsule = PyCapsule_New(content.get(), name, delete_capsule<Struct>);
  if (capsule) static_cast<void>(content.release());
  else content->release(content.get());
  return capsule;
}

PyObject* text_column_arrow(PyObject* self, PyObject*) {
  return translate_exceptions([&]() -> PyObject* {
    const std::shared_ptr<const TextColumn>& column = *reinterpret_cast<TextColumnObject*>(self)->content;
    auto schema = std::make_unique<ArrowSchema>();
    *schema = {"u", "", nullptr, ARROW_FLAG_NULLABLE, 0, nullptr, nullptr, release_schema, nullptr};
    auto exported = std::make_unique<Exported>(
        Exported{column, {column->validity(), column->offsets().data(), column->bytes().data()}});
    auto array = std::make_unique<ArrowArray>();
    *array = {int64_t(column->size()),
              int64_t(column->null_count()),
              0,
              3,
              0,
              exported->buffers,
              nullptr,
              nullptr,
              release_array,
              nullptr};
    array->private_data = exported.release();
    const Owned first(make_capsule(std::move(schema), "arrow_schema"));
    const Owned second(make_capsule(std::move(array), "arrow_array"));
    return first && second ? PyTuple_Pack(2, first.object, second.object) : nullptr;
  });
}

PyMethodDef text_column_methods[] = {
    {"to_pylist", text_column_to_pylist, METH_NOARGS, "The texts as a list of str, with None for null."},
    {"__arrow_c_array__", text_column_arrow, METH_VARARGS,
     "Two capsules of the Arrow C data interface: the schema \"u\", and the array, whose bytes are not copied."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef text_column_properties[] = {{"null_count", text_column_null_count, nullptr, nullptr, nullptr},
                                        {"nbytes", text_column_nbytes, nullptr, nullptr, nullptr},
                                        {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot text_column_slots[] = {{Py_tp_new, reinterpret_cast<void*>(make_text_column)},
                                   {Py_tp_dealloc, reinterpret_cast<void*>(delete_object<TextColumnObject>)},
                                   {Py_tp_methods, text_column_methods},
                                   {Py_tp_getset, text_column_properties},
                                   {Py_tp_iter, reinterpret_cast<void*>(text_column_iterate)},
                                   {Py_sq_length, reinterpret_cast<void*>(text_column_length)},
                                   {0, nullptr}};
PyType_Spec text_column_spec = {
    "dendritic_bert._files.TextColumn", sizeof(TextColumnObject), 0, Py_TPFLAGS_DEFAULT, text_column_slots};

// ---- RecordScanner --------------------------------------------------------------------------------------------------

struct Scanner {
  RecordScanner records;
  bool is_in_use = false;  // by a thread that has given the interpreter's lock away
};

struct ScannerObject {
  PyObject_HEAD Scanner* content;
};

// The scanner; nullptr and an exception if another thread is scanning.
Scanner* scanner_of(PyObject* self) {
  Scanner* scanner = reinterpret_cast<ScannerObject*>(self)->content;
  if (!scanner->is_in_use) return scanner;
  PyErr_SetString(PyExc_RuntimeError, "another thread is using this scanner.");
  return nullptr;
}

bool read_columns(PyObject* columns, ScannerSettings& settings) {
  settings.num_columns = size_t(PyTuple_Size(columns));
  for (size_t i = 0; i < settings.num_columns; ++i) {
    PyObject* column = PyTuple_GetItem(columns, Py_ssize_t(i));
    if (settings.format == Format::jsonl) {
      Py_ssize_t size;
      const char* key = PyUnicode_AsUTF8AndSize(column, &size);
      if (!key) return false;
      settings.keys.emplace_back(key, size_t(size));
    } else if (settings.format != Format::text) {
      const size_t field = PyLong_AsSize_t(column);
      if (PyErr_Occurred()) return false;
      if (field >= settings.width) {
        PyErr_Format(PyExc_ValueError, "columns[%zu] is %zu, expected a number below %zu.", i, field, settings.width);
        return false;
      }
      settings.fields.push_back(field);
    }
  }
  return true;
}

PyObject* make_scanner(PyTypeObject* type, PyObject* arguments, PyObject*) {
  const char* format;
  int delimiter;
  PyObject* columns;
  Py_ssize_t width, num_texts, most_record_bytes;
  if (!PyArg_ParseTuple(
          arguments, "sCnO!nn", &format, &delimiter, &width, &PyTuple_Type, &columns, &num_texts, &most_record_bytes))
    return nullptr;
  const std::string_view names[] = {"text", "csv", "tsv", "jsonl"};
  size_t number = 0;
  while (number < 4 && names[number] != format) ++number;
  if (number == 4) return PyErr_Format(PyExc_ValueError, "format is '%s', known are text, csv, tsv, jsonl.", format);
  if (delimiter >= 0x80 || width < 0 || num_texts < 0 || most_record_bytes < 0) {
    PyErr_SetString(PyExc_ValueError, "expected a delimiter of ASCII, and numbers from 0 on.");
    return nullptr;
  }
  return translate_exceptions([&]() -> PyObject* {
    ScannerSettings settings = {
        Format(number), char(delimiter), size_t(width), {}, {}, size_t(num_texts), 0, size_t(most_record_bytes)};
    if (!read_columns(columns, settings)) return nullptr;
    auto content = std::make_unique<Scanner>(Scanner{RecordScanner(std::move(settings))});
    PyObject* self = allocate(type);
    if (self) reinterpret_cast<ScannerObject*>(self)->content = content.release();
    return self;
  });
}

Py_ssize_t scanner_length(PyObject* self) {
  return Py_ssize_t(reinterpret_cast<ScannerObject*>(self)->content->records.size());
}

PyObject* scan(PyObject* self, PyObject* arguments) {
  const char* bytes;
  Py_ssize_t size, begin, most_records, most_bytes;
  long long lines_before;
  if (!PyArg_ParseTuple(arguments, "y#nLnn", &bytes, &size, &begin, &lines_before, &most_records, &most_bytes))
    return nullptr;
  if (begin < 0 || begin > size || most_records < 0 || most_bytes < 0)
    return PyErr_Format(PyExc_ValueError, "begin is %zd, expected 0 to %zd.", begin, size);
  Scanner* scanner = scanner_of(self);
  if (!scanner) return nullptr;
  return translate_exceptions([&]() -> PyObject* {
    Progress progress;
    scanner->is_in_use = true;
    try {
      const Unlocked unlocked(size_t(size - begin));
      progress = scanner->records.scan(
          {bytes, size_t(size)}, size_t(begin), lines_before, size_t(most_records), size_t(most_bytes));
    } catch (...) {
      scanner->is_in_use = false;
      throw;
    }
    scanner->is_in_use = false;
    const char* stops[] = {"full", "more", "odd"};
    return Py_BuildValue(
        "nLs", Py_ssize_t(progress.end), static_cast<long long>(progress.lines), stops[int(progress.stop)]);
  });
}

PyObject* append_record(PyObject* self, PyObject* arguments) {
  PyObject* cells;
  long long line;
  if (!PyArg_ParseTuple(arguments, "OL", &cells, &line)) return nullptr;
  Scanner* scanner = scanner_of(self);
  if (!scanner) return nullptr;
  std::vector<TextColumn>& columns = scanner->records.columns();
  return translate_exceptions([&]() -> PyObject* {
    const Owned items(PySequence_Tuple(cells));
    if (!items) return nullptr;
    if (size_t(PyTuple_Size(items)) != columns.size())
      return PyErr_Format(PyExc_ValueError, "cells has %zd, expected one for each of %zu columns.", PyTuple_Size(items),
                          columns.size());
    for (size_t i = 0; i < columns.size(); ++i) {  // before any is appended
      PyObject* cell = PyTuple_GetItem(items, Py_ssize_t(i));
      if (cell != Py_None && !PyUnicode_AsUTF8AndSize(cell, nullptr)) return nullptr;
    }
    for (size_t i = 0; i < columns.size(); ++i) append_object(columns[i], PyTuple_GetItem(items, Py_ssize_t(i)));
    scanner->records.end_record(line);
    Py_RETURN_NONE;
  });
}

PyObject* take_records(PyObject* self, PyObject*) {
  Scanner* scanner = scanner_of(self);
  if (!scanner) return nullptr;
  return translate_exceptions([&]() -> PyObject* {
    RecordScanner& records = scanner->records;
    const std::vector<int64_t>& lines = records.line_numbers();
    Owned columns(PyTuple_New(Py_ssize_t(records.columns().size())));
    if (!columns) return nullptr;
    for (size_t i = 0; i < records.columns().size(); ++i) {
      PyObject* column = wrap_column(text_column_type, std::move(records.columns()[i]));
      if (!column || PyTuple_SetItem(columns, Py_ssize_t(i), column)) return nullptr;
    }
    const Owned numbers(PyBytes_FromStringAndSize(
        reinterpret_cast<const char*>(lines.data()), Py_ssize_t(lines.size() * sizeof(int64_t))));
    if (!numbers) return nullptr;
    records.clear();
    return PyTuple_Pack(2, columns.object, numbers.object);
  });
}

PyMethodDef scanner_methods[] = {
    {"scan", scan, METH_VARARGS, "scan(block, place, lines_before, most_records, most_bytes) -> (place, lines, stop)"},
    {"append", append_record, METH_VARARGS, "append(cells, line)"},
    {"take", take_records, METH_NOARGS, "take() -> (columns, line_numbers)"},
    {nullptr, nullptr, 0, nullptr}};
PyType_Slot scanner_slots[] = {{Py_tp_new, reinterpret_cast<void*>(make_scanner)},
                               {Py_tp_dealloc, reinterpret_cast<void*>(delete_object<ScannerObject>)},
                               {Py_tp_methods, scanner_methods},
                               {Py_sq_length, reinterpret_cast<void*>(scanner_length)},
                               {0, nullptr}};
PyType_Spec scanner_spec = {
    "dendritic_bert._files.RecordScanner", sizeof(ScannerObject), 0, Py_TPFLAGS_DEFAULT, scanner_slots};

// ---- format_rows ----------------------------------------------------------------------------------------------------

// The texts of an object with __arrow_c_array__, which the capsules keep alive. False and an exception if it has not
// `num_rows` strings.
bool read_texts(PyObject* object, size_t num_rows, std::vector<std::unique_ptr<Owned>>& capsules, TextView& texts) {
  capsules.push_back(std::make_unique<Owned>(PyObject_CallMethod(object, "__arrow_c_array__", nullptr)));
  PyObject* pair = capsules.back()->object;
  if (!pair) return false;
  const auto* schema = static_cast<const ArrowSchema*>(PyCapsule_GetPointer(PyTuple_GetItem(pair, 0), "arrow_schema"));
  const auto* array = static_cast<const ArrowArray*>(PyCapsule_GetPointer(PyTuple_GetItem(pair, 1), "arrow_array"));
  if (!schema || !array) return false;
  const std::string_view format = schema->format;
  if ((format != "u" && format != "U") || size_t(array->length) != num_rows) {
    PyErr_Format(PyExc_ValueError, "a column is %lld of Arrow's format '%s', expected %zu strings (u or U).",
                 static_cast<long long>(array->length), schema->format, num_rows);
    return false;
  }
  const void** buffers = array->buffers;
  texts = {static_cast<const char*>(buffers[2]), format == "u" ? static_cast<const int32_t*>(buffers[1]) : nullptr,
           format == "U" ? static_cast<const int64_t*>(buffers[1]) : nullptr,
           array->null_count == 0 ? nullptr : static_cast<const uint8_t*>(buffers[0]), size_t(array->offset)};
  return true;
}

bool read_names(PyObject* names, std::vector<std::string_view>& views) {
  for (Py_ssize_t i = 0; i < PyTuple_Size(names); ++i) {
    Py_ssize_t size;
    const char* name = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(names, i), &size);
    if (!name) return false;
    views.emplace_back(name, size_t(size));
  }
  return true;
}

bool read_numbers(PyObject* numbers, size_t num_rows, const char*& data) {
  char* bytes;
  Py_ssize_t size;
  if (PyBytes_AsStringAndSize(numbers, &bytes, &size)) return false;
  if (size_t(size) != num_rows * 4) {
    PyErr_Format(PyExc_ValueError, "a column has %zd bytes, expected 4 for each of %zu rows.", size, num_rows);
    return false;
  }
  data = bytes;
  return true;
}

bool read_field(PyObject* column, size_t num_rows, std::vector<std::unique_ptr<Owned>>& capsules, Field& field) {
  const char *before, *kind;
  Py_ssize_t before_size;
  PyObject *data, *names;
  if (!PyArg_ParseTuple(column, "s#sOO!", &before, &before_size, &kind, &data, &PyTuple_Type, &names)) return false;
  field.before = {before, size_t(before_size)};
  const std::string_view kinds[] = {"plain", "json", "csv_quoted", "csv", "tsv", "label", "score"};
  int number = 0;
  while (number < 7 && kinds[number] != kind) ++number;
  if (number == 7) {
    PyErr_Format(PyExc_ValueError, "the kind of a column is '%s', which is not known.", kind);
    return false;
  }
  field.kind = FieldKind(number);
  if (field.kind == FieldKind::label || field.kind == FieldKind::score)
    return read_names(names, field.names) && read_numbers(data, num_rows, field.numbers);
  return read_texts(data, num_rows, capsules, field.texts);
}

PyObject* format_rows_of(PyObject*, PyObject* arguments) {
  Py_ssize_t num_rows, end_size, null_size;
  PyObject *columns, *write = Py_None;
  const char *row_end, *null;
  if (!PyArg_ParseTuple(
          arguments, "nO!s#s#|O", &num_rows, &PyTuple_Type, &columns, &row_end, &end_size, &null, &null_size, &write))
    return nullptr;
  return translate_exceptions([&]() -> PyObject* {
    std::vector<std::unique_ptr<Owned>> capsules;
    std::vector<Field> fields(static_cast<size_t>(PyTuple_Size(columns)));
    for (size_t i = 0; i < fields.size(); ++i)
      if (!read_field(PyTuple_GetItem(columns, Py_ssize_t(i)), size_t(num_rows), capsules, fields[i])) return nullptr;
    GrowingBytes out;
    const auto format = [&](const TakePart& take) {
      format_rows(size_t(num_rows), fields, {row_end, size_t(end_size)}, {null, size_t(null_size)}, out, take);
    };
    if (write == Py_None) {
      const Unlocked unlocked(size_t(num_rows) * 64);
      format(nullptr);
    } else {
      format([&](std::string_view part) {
        const Owned done(PyObject_CallFunction(write, "y#", part.data(), Py_ssize_t(part.size())));
        if (!done) throw PythonError();
      });
    }
    return PyBytes_FromStringAndSize(out.view().data(), Py_ssize_t(out.view().size()));
  });
}

// ---- the module -----------------------------------------------------------------------------------------------------

PyMethodDef module_functions[] = {
    {"format_rows", format_rows_of, METH_VARARGS, "format_rows(num_rows, columns, row_end, null, write=None) -> bytes"},
    {nullptr, nullptr, 0, nullptr}};

int add_types(PyObject* module) {
  const Owned column(PyType_FromSpec(&text_column_spec)), scanner(PyType_FromSpec(&scanner_spec));
  if (!column || !scanner) return -1;
  text_column_type = reinterpret_cast<PyTypeObject*>(column.object);
  return PyModule_AddType(module, text_column_type) ||
                 PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(scanner.object))
             ? -1
             : 0;
}

PyModuleDef_Slot module_slots[] = {{Py_mod_exec, reinterpret_cast<void*>(add_types)}, {0, nullptr}};
PyModuleDef module_definition = {PyModuleDef_HEAD_INIT,
                                 "_files",
                                 "Bytes of files to columns of texts, and columns to bytes, in C++.",
                                 0,
                                 module_functions,
                                 module_slots,
                                 nullptr,
                                 nullptr,
                                 nullptr};

}  // namespace
}  // namespace dendritic_bert::files

PyMODINIT_FUNC PyInit__files() { return PyModuleDef_Init(&dendritic_bert::files::module_definition); }
