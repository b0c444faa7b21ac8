"""The runtime without PyTorch: the results of the package, from numpy and the engine alone."""

import fcntl
import gzip
import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch
from helpers import REPOSITORY
from small_classifier import WORDS, hugging_face_tokenizer, small_model
from transformers import AutoConfig

from dendritic_bert import TextClassifier, _engine
from dendritic_bert.embedded_model import find_model
from dendritic_bert.export import export
from dendritic_bert.inference.engine_model import model_file

TEXTS = ["a charming journey", "", *WORDS, "caf\u00e9 [SEP]", "x " * 600, "lone \ud800"]
MAX_LENGTH = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the package, as runtime/setup.py puts it together, but with the small model."""
    folder = tmp_path_factory.mktemp("runtime")
    package = folder / "dendritic_bert_runtime"
    shutil.copytree(REPOSITORY / "runtime" / "dendritic_bert_runtime", package)
    (package / "_engine.abi3.so").symlink_to(_engine.__file__)
    export(find_model("tiny"), package / "model.dsn", "engine", max_length=MAX_LENGTH)
    return folder


@pytest.fixture
def runtime(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    import dendritic_bert_runtime

    return dendritic_bert_runtime


def test_results_are_the_packages(runtime):
    ours, theirs = TextClassifier.from_pretrained("tiny"), runtime.TextClassifier()
    ours.max_length = MAX_LENGTH
    assert theirs.labels == ours.labels
    for threads in (None, 1, 2):
        assert theirs(TEXTS, threads) == ours(TEXTS)
    assert theirs("good film") == ours("good film")
    assert theirs.num_truncated == ours.num_truncated == 3
    texts = TEXTS[:-1]
    for given in (texts, tuple(texts), pa.array(texts)):
        for expected, found in zip(ours.predict_array(texts), theirs.predict_array(given, threads=2), strict=True):
            assert np.array_equal(found, expected)
            assert found.dtype == expected.dtype
    assert pickle.loads(pickle.dumps(theirs))(TEXTS) == ours(TEXTS)


class Counted:
    """A model that writes down how many texts each call has."""

    def __init__(self, model):
        self.model, self.sizes = model, []

    def __getattr__(self, name):
        method = getattr(self.model, name)
        return method if not callable(method) else lambda texts, *others: self.sizes.append(len(texts)) or method(
            texts, *others)


def test_many_texts_are_given_to_the_engine_in_slices(runtime, monkeypatch):
    """Between which Python sees an interrupt from the keyboard; nothing else depends on them."""
    classifier = runtime.TextClassifier()
    given = (TEXTS, tuple(TEXTS), pa.array(TEXTS[:-1]))
    best, expected = classifier(TEXTS), [classifier.predict_array(texts) for texts in given]
    num_truncated = classifier.num_truncated
    classifier._model = Counted(classifier._model)
    monkeypatch.setattr(runtime.classifier, "ENGINE_TEXTS", 4)
    assert classifier(TEXTS) == best
    for texts, whole in zip(given, expected):
        assert all(map(np.array_equal, classifier.predict_array(texts), whole))
    assert set(classifier._model.sizes) == {4, len(TEXTS) % 4, (len(TEXTS) - 1) % 4} - {0}
    assert classifier.num_truncated == 2 * num_truncated
    for call in (classifier, classifier.predict_array):
        with pytest.raises(TypeError, match=r"^texts\[6\] is 3 of type int, every text must be a str"):
            call([*TEXTS[:6], 3])


def test_a_score_that_is_nan_names_its_text(runtime, tmp_path, monkeypatch):
    model = small_model()
    classifier = TextClassifier(model, hugging_face_tokenizer())
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[classifier.tokenizer(["fox"]).input_ids[1]] = torch.nan
        file = model_file(model.current_tables(), model.config, classifier.tokenizer, 24, 24, classifier.labels)
    (tmp_path / "model.dsn").write_bytes(file.tobytes())
    theirs = runtime.TextClassifier(tmp_path / "model.dsn")
    monkeypatch.setattr(runtime.classifier, "ENGINE_TEXTS", 2)
    for call in (theirs, theirs.predict_array):
        with pytest.raises(ValueError, match=r"^the model gives texts\[3\] a score that is NaN or infinite: load anot"):
            call(["a", "b", "a", "fox"])


def test_errors(runtime, tmp_path):
    with pytest.raises(FileNotFoundError):
        runtime.TextClassifier(tmp_path / "missing.dsn")
    (tmp_path / "cut.dsn").write_bytes(runtime.classifier.EMBEDDED_MODEL.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"cut\.dsn cannot be read: it has .* bytes and should have .*: copy it again"):
        runtime.TextClassifier(tmp_path / "cut.dsn")
    with pytest.raises(ValueError, match="threads is 0, it must be at least 1"):
        runtime.TextClassifier()(["a"], threads=0)


@pytest.mark.parametrize(("texts", "message"), [
    ({"text": "a"}, "texts is a dict, pass one column of it."),
    ({"a"}, "texts is a set, which has no order: pass a list of str."),
    (b"ab", "texts is a bytes, pass a list of str."),
    (None, "texts is a NoneType, pass a list of str."),
    ([None], "texts[0] is None of type NoneType, every text must be a str: convert it or leave it out."),
    (("a", 1), "texts[1] is 1 of type int, every text must be a str: convert it or leave it out."),
    ("a", "texts is a str, pass a list of str."),
])
def test_what_is_no_text(runtime, texts, message):
    classifier = runtime.TextClassifier()
    for call in (classifier, classifier.predict_array)[isinstance(texts, str):]:
        with pytest.raises(TypeError) as error:
            call(texts)
        assert str(error.value) == message


def test_a_text_of_more_tokens_than_the_model_takes(runtime, tmp_path):
    """Tables for rows of 64, as a file without a limit of length may have them."""
    model = small_model(hidden_size=64, max_position_embeddings=300)
    classifier = TextClassifier(model, hugging_face_tokenizer())
    with torch.no_grad():
        file = model_file(model.current_tables(), model.config, classifier.tokenizer, None, 1, classifier.labels)
    (tmp_path / "model.dsn").write_bytes(file.tobytes())
    theirs = runtime.TextClassifier(tmp_path / "model.dsn")
    for call in (theirs, theirs.predict_array):
        with pytest.raises(ValueError, match=r"^a text has 102 tokens, more than the model takes \(64\): split it"):
            call(["a", "a " * 100])
        assert len(call(["a " * 62])) > 0


def test_an_interrupt_ends_the_command_quietly(runtime, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime.TextClassifier, "__call__", interrupted)
    monkeypatch.setattr(sys, "argv", ["dendritic-bert-classify", "dull"])
    from dendritic_bert_runtime.__main__ import main

    assert main() == 130
    assert capsys.readouterr() == ("", "")


def test_the_command_needs_no_torch_and_for_labels_no_numpy(folder):
    code = ("import sys; from dendritic_bert_runtime.__main__ import main; status = main(); "
            "print(sorted({'torch', 'numpy', 'transformers', 'tokenizers'} & set(sys.modules)), file=sys.stderr); "
            "sys.exit(status)")
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}

    def run(*arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, **options)

    done = run(input=b"a charming journey\r\ndull \xff\n")
    assert done.stderr.decode().strip() == "[]"
    output = io.BytesIO()
    TextClassifier.from_pretrained("tiny").classify_file(io.BytesIO(b"a charming journey\r\ndull \xff\n"), output)
    assert done.stdout == output.getvalue()
    assert run("dull", input=b"").stdout.startswith(b'{"text": "dull", "label": ')
    assert json.loads(run("a \udcff", input=b"").stdout)["text"] == "a \ufffd"
    assert run(input="dull\r\n".encode("utf-16")).stdout == run("dull").stdout
    assert b"standard input is not text but gzip, by its first bytes" in run(input=gzip.compress(b"dull\n")).stderr
    done = run("--model", str(folder / "none"), "dull")
    assert done.returncode == 1
    assert b"No such file or directory" in done.stderr


def test_standard_input_that_does_not_wait_is_read_to_its_end(runtime, monkeypatch, capfd):
    """What is not there yet is not the end, neither before the first byte nor later."""
    from dendritic_bert_runtime.__main__ import main

    descriptor, writable = os.pipe()
    os.set_blocking(descriptor, False)

    def write_slowly():
        with open(writable, "wb", buffering=0) as pipe:
            for part in (b"a fi", b"lm\nbleak\n"):
                time.sleep(0.1)
                pipe.write(part)

    writer = threading.Thread(target=write_slowly)
    with open(descriptor, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        monkeypatch.setattr(sys, "argv", ["dendritic-bert-classify"])
        writer.start()
        assert main() == 0
    writer.join()
    assert [json.loads(line)["text"] for line in capfd.readouterr().out.splitlines()] == ["a film", "bleak"]


# ---- files -----------------------------------------------------------------------------------------------------------

RECORDS = [text for text in TEXTS if "\ud800" not in text] * 200  # several batches
TABLE = pa.table({"number": range(len(RECORDS)), "review": RECORDS})
LINES = ['a "charming" journey', "", "dull\tand bleak", "caf\u00e9, \U0001f600", *WORDS] * 300


def csv_bytes(delimiter: str) -> bytes:
    cells = [line.replace('"', '""') if delimiter == "," else line.replace("\t", " ") for line in LINES]
    quote = '"' if delimiter == "," else ""
    rows = [f"{number}{delimiter}{quote}{cell}{quote}" for number, cell in enumerate(cells)]
    return "\r\n".join([f"number{delimiter}review", *rows, ""]).encode()


def write_table(write, table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    write(table, sink)
    return sink.getvalue().to_pybytes()


def write_arrow(table: pa.Table, sink) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 500)


def write_arrow_stream(table: pa.Table, sink) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, 500)


TAGS = pa.table({"tags": [["good", "film"], ["bad"]], "review": ["x", "y"]})
BAD_DICTIONARY = pa.DictionaryArray.from_arrays(
    pa.array([0, 1, 1]), pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers()))
INPUTS = {
    "lines.txt": lambda: b"\xef\xbb\xbf" + "\n".join(LINES).encode() + b"\nlast \xff\r\n",
    "mark_alone.txt": lambda: b"\xef\xbb\xbf",
    "multi-line.csv": lambda: csv_bytes(",") + b'7,"two\nlines"\n\n8,\n',
    "plain.tsv": lambda: csv_bytes("\t"),
    "not_utf8.csv": lambda: b"number,review\n1,caf\xe9\n2,b\xe4\xb8 \xff\xfe\n",
    "lines.jsonl.gz": lambda: gzip.compress("".join(
        json.dumps({"review": line, "number": 1}, ensure_ascii=bool(number % 2)) + "\n\n"
        for number, line in enumerate([*LINES, "lone \ud800"])).encode("utf-8", "replace")),
    "lines.csv.zst": lambda: pa.compress(csv_bytes(","), "zstd", asbytes=True),
    "not_utf8.arrow": lambda: write_table(write_arrow, pa.table({"review": pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"caf\xe9 \xff", b"ok\xff!", b"b\xe4\xb8"]).buffers())})),
    "not_utf8_dictionary.arrow": lambda: write_table(write_arrow_stream, pa.table({"review": BAD_DICTIONARY})),
    "utf16.csv": lambda: csv_bytes(",").decode().encode("utf-16"),
    "utf32.txt": lambda: ("\ufeff" + "\n".join(LINES)).encode("utf-32-be"),
    "named.csv": lambda: b"\xef\xbb\xbfsep=;\r\n" + csv_bytes(",").replace(b",", b";", 1).replace(b',"', b';"'),
    "frames.txt.zst": lambda: 2 * (b"\x50\x2a\x4d\x18\x04\0\0\0size" + pa.compress(b"a film\n", "zstd", asbytes=True)),
    "padded.txt.gz": lambda: gzip.compress(b"a film\n") + gzip.compress(b"dull\n") + bytes(20),  # as tapes pad it
    "table.parquet": lambda: write_table(pa.parquet.write_table, TABLE),
    "large.arrow": lambda: write_table(write_arrow, TABLE.cast(
        pa.schema([("number", pa.int64()), ("review", pa.large_string())]))),
    "dictionary.arrow": lambda: write_table(write_arrow_stream, TABLE.set_column(
        1, "review", TABLE["review"].dictionary_encode())),
}


@pytest.fixture
def classify_file(runtime):
    from dendritic_bert_runtime.files import classify_file

    return classify_file


@pytest.fixture(scope="module")
def ours():
    classifier = TextClassifier.from_pretrained("tiny")
    classifier.max_length = MAX_LENGTH
    return classifier


def read_output(path):
    return pa.table(feather.read_table(path) if path.suffix == ".arrow" else pq.read_table(path))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.tsv.gz", "out.parquet", "out.arrow"])
def test_files_are_the_packages(runtime, classify_file, ours, tmp_path, name, output):
    input, found, expected = tmp_path / name, tmp_path / output, tmp_path / f"expected_{output}"
    input.write_bytes(INPUTS[name]())
    column = None if ".txt" in name else "review"
    count = classify_file(runtime.TextClassifier(), input, found, column, threads=2)
    assert count == ours.classify_file(input, expected, column=column, progress=False).num_records
    if output.endswith(("parquet", "arrow")):
        assert read_output(found).to_pydict() == read_output(expected).to_pydict()
    elif output.endswith(".gz"):
        assert gzip.decompress(found.read_bytes()) == gzip.decompress(expected.read_bytes())
    else:
        assert found.read_bytes() == expected.read_bytes()


def test_the_column_is_found(runtime, classify_file, tmp_path):
    for name, content in {"a.csv": b"text,b\nx,1\n", "b.csv": b"review\nx\n", "c.jsonl": b'{"text": "x"}\n',
                          "d.parquet": INPUTS["table.parquet"](), "e.tsv": b"review\nx\n",
                          "f.jsonl": b'\n{"id": 1, "review": "x"}\n{"id": "2", "review": "y"}\n',
                          "g.jsonl": b'{"text": "x", "review": "y"}\n',
                          "h.parquet": write_table(pq.write_table, TAGS)}.items():
        (tmp_path / name).write_bytes(content)
        output = io.BytesIO()
        assert classify_file(runtime.TextClassifier(), tmp_path / name, output) > 0
        assert json.loads(output.getvalue().splitlines()[0])["text"] in ("x", RECORDS[0])


def test_a_column_whose_name_has_a_delimiter_can_be_given(runtime, classify_file, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a;b\nx;y\n")
    classify_file(runtime.TextClassifier(), tmp_path / "a.csv", output := io.BytesIO(), "a;b")
    assert json.loads(output.getvalue())["text"] == "x;y"


def test_a_column_of_parquet_with_the_name_of_a_path(runtime, classify_file, tmp_path):
    pq.write_table(pa.table({"a": [{"b": "y"}], "a.b": ["x"]}), tmp_path / "a.parquet")
    classify_file(runtime.TextClassifier(), tmp_path / "a.parquet", output := io.BytesIO(), "a.b")
    assert json.loads(output.getvalue())["text"] == "x"


def test_a_batch_of_long_lines_has_few(runtime, classify_file, tmp_path, monkeypatch):
    """About BLOCK_BYTES; the results are those of any other batches."""
    from dendritic_bert_runtime import lines

    monkeypatch.setattr(lines, "BLOCK_BYTES", 20)
    (tmp_path / "a.txt").write_text("a film\n" * 5 + "b" * 30 + "\n" * 2)
    sizes, predict = [], runtime.TextClassifier.predict_array

    def counted(self, texts, threads):
        sizes.append(len(texts))
        return predict(self, texts, threads)

    monkeypatch.setattr(runtime.TextClassifier, "predict_array", counted)
    assert classify_file(runtime.TextClassifier(), tmp_path / "a.txt", io.BytesIO()) == 7
    assert sizes == [4, 2, 1]


def test_a_batch_of_long_lines_of_standard_input_has_few(runtime, monkeypatch, capfd):
    from dendritic_bert_runtime import lines
    from dendritic_bert_runtime.__main__ import main

    monkeypatch.setattr(lines, "BLOCK_BYTES", 20)
    data = io.BytesIO(b"a film\n" * 5 + b"b" * 30 + b"\n" * 2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(data)))
    monkeypatch.setattr(sys, "argv", ["dendritic-bert-classify"])
    sizes, call = [], runtime.TextClassifier.__call__
    monkeypatch.setattr(runtime.TextClassifier, "__call__",
                        lambda self, texts, threads: sizes.append(len(texts)) or call(self, texts, threads))
    assert main() == 0
    assert sizes == [4, 2, 1]
    assert len(capfd.readouterr().out.splitlines()) == 7


def trained_on(runtime, tmp_path, problem_type=None, **columns):
    """A classifier whose model was trained on these columns."""
    config, path = AutoConfig.from_pretrained(find_model("tiny")), tmp_path / "model.dsn"
    config.training_columns = {**columns, "label_column": "topic"}
    config.problem_type = problem_type
    folder = shutil.copytree(find_model("tiny"), tmp_path / "model")
    config.save_pretrained(folder)
    export(folder, path, "engine")
    return runtime.TextClassifier(path)


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", b"text,title\n1,x\n"), ("a.tsv", b"title\ttext\nx\t1\n"), ("a.csv", b"text,more\nx,1\n"),
    ("a.jsonl", b'{"text": "1", "title": "x"}\n'), ("a.jsonl", b'{"text": "x"}\n')])
def test_the_column_of_the_training_is_found(runtime, classify_file, tmp_path, name, content):
    """Where the input has it; else that of any model."""
    classifier, output = trained_on(runtime, tmp_path, text_column="title"), io.BytesIO()
    assert classifier.text_columns == ["title"]
    (tmp_path / name).write_bytes(content)
    classify_file(classifier, tmp_path / name, output)
    assert json.loads(output.getvalue().splitlines()[0])["text"] == "x"


@pytest.mark.filterwarnings("ignore:.* was trained on pairs")
def test_a_model_of_pairs_reads_no_single_texts(runtime, classify_file, tmp_path):
    classifier = trained_on(runtime, tmp_path, text_column="question", text_pair_column="answer")
    (tmp_path / "a.csv").write_bytes(b"question,answer\nx,y\n")
    with pytest.raises(ValueError, match="trained on pairs, of the columns 'question' and 'answer', and single texts"):
        classify_file(classifier, tmp_path / "a.csv", io.BytesIO())
    with pytest.warns(UserWarning, match="single texts are classified: use dendritic-bert, which takes pairs"):
        assert classify_file(classifier, tmp_path / "a.csv", io.BytesIO(), "question") == 1
    for classify in (classifier, classifier.predict_array):
        with pytest.warns(UserWarning, match="on pairs, of the columns 'question' and 'answer', but single") as warned:
            classify(["x"])
        assert warned[0].filename == __file__


def test_a_record_has_no_room_for_several_targets(runtime, classify_file, tmp_path, monkeypatch, capfd):
    classifier = trained_on(runtime, tmp_path, "regression", text_column="text")
    (tmp_path / "a.txt").write_text("x\n")
    message = "a regression of 2 targets, of which a record here has room for one: use dendritic-bert classify, or pre"
    with pytest.raises(ValueError, match=message):
        classify_file(classifier, tmp_path / "a.txt", io.BytesIO())
    assert classifier.predict_array(["x"])[1].shape == (1, 2)
    from dendritic_bert_runtime.__main__ import main

    monkeypatch.setattr(sys, "argv", ["dendritic-bert-classify", "--model", classifier.path, "x"])
    capfd.readouterr()  # the bars of transformers
    assert main() == 1
    assert message in capfd.readouterr().err


def test_lines_of_text_have_no_columns(runtime, classify_file, tmp_path):
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(ValueError, match=r"column is 'b', but .*a\.txt is read as lines of text, which have none: le"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", io.BytesIO(), "b")
    assert classify_file(runtime.TextClassifier(), tmp_path / "a.txt", io.BytesIO(), "text") == 1


@pytest.mark.filterwarnings("ignore:.* was trained on pairs")
@pytest.mark.parametrize("arguments", [["dull"], [], ["--file", "a.txt"], ["--file", "a.csv"]], ids=str)
def test_the_command_reads_no_single_texts_with_a_model_of_pairs(runtime, tmp_path, monkeypatch, capfd, arguments):
    path = trained_on(runtime, tmp_path, text_column="question", text_pair_column="answer").path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("dull\n")
    (tmp_path / "a.csv").write_text("question,answer\nx,y\n")
    from dendritic_bert_runtime.__main__ import main

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"dull\n")))
    monkeypatch.setattr(sys, "argv", ["dendritic-bert-classify", "--model", path, *arguments])
    capfd.readouterr()  # the bars of transformers
    assert main() == 1
    assert capfd.readouterr() == ("", "dendritic-bert-classify: error: the model was trained on pairs, of the columns "
                                      "'question' and 'answer', and single texts are read here: use dendritic-bert, "
                                      "or pass --column with --file for single texts.\n")
    monkeypatch.setattr(sys, "argv", [*sys.argv[:3], "--file", "a.csv", "--column", "question"])
    assert main() == 0
    assert json.loads(capfd.readouterr().out)["text"] == "x"


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"a,b\n1,2\n", r"a\.csv has no column 'text' of texts.*: a, b\. Pass --column"),
    ("a.csv", b"text,text\n1,2\n", "or two of them"),
    ("a.csv", b"review;id\ngood film;1\n", r"a\.csv has a header of one column, 'review;id', whose names ';' seems to "
                                          r"separate: save it with commas, or use dendritic-bert classify --input-fo"),
    ("a.tsv", b"review,id\ngood film,1\n", r"whose names ',' seems to separate: save it with tabs, or use"),
    ("a.csv", b"sep=;\ntext;b\nx;1\ny\n", r"line 4 of .*a\.csv ends a record of 1 fields, the header has 2: mend it"),
    ("a.csv", gzip.compress(b"text\nx\n", mtime=0), r"a\.csv is not text but gzip, by its first bytes: decompress"),
    ("a.txt.gz", gzip.compress(pa.compress(b"x\n", "zstd", asbytes=True), mtime=0), r"a\.txt\.gz is not text but zstd"),
    ("a.jsonl", '{"text": "x"}\n'.encode("utf-16-le"), r"a\.jsonl is not text in UTF-8, 14 of its first 28 bytes are"),
    ("a.jsonl", b'{"text": "a", "b": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", r"line 1 of .* is not JSON \(max"),
    ("a.csv", b"text,b\n1,2,3\n", r"line 2 of .*a\.csv ends a record of 3 fields, the header has 2: mend it"),
    ("a.csv", b'text,b\nx,1\n"open,1\ny,2\n', r"line 4 of .*a\.csv is not CSV \(unexpected end of data\): mend its q"),
    ("a.csv", b'text,b\n"x"y,1\n', r"line 2 of .*a\.csv is not CSV \("),
    ("a.tsv", b"text\tb\nx\n", r"line 2 of .*a\.tsv ends a record of 1 fields, the header has 2"),
    ("a.csv", b"", r"a\.csv has no column 'text' of texts.*: none\. Pass --column"),
    ("a.csv.gz", gzip.compress(b"text\n" + b"x\n" * 999, mtime=0)[:-9], r"cannot be read as csv \("),
    ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', r"line 2 of .*a\.jsonl has no text under 'text'"),
    ("a.jsonl", b'{"title": "x", "body": "y"}\n', r"line 1 of .*a\.jsonl has no text under 'text': .*pass --column"),
    ("a.jsonl", b'{"id": 1}\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'{"a": "x"}\n{"b": "x"}\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'{"id": "1"}\n{"id": "2", "text": "x"}\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'["x"]\n', "line 1 of .* has no text under 'text'"),
    ("a.jsonl", b'{"text": "x"}\n\n{"text"\n', r"line 3 of .*a\.jsonl is not JSON"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:-9], r"cannot be read as jsonl \("),
    ("a.txt.gz", gzip.compress(b"x\n", mtime=0)[:10] + b"\xff" * 20, r"a\.txt\.gz cannot be read as text \("),
    ("a.txt.gz", b"x\n", r"a\.txt\.gz cannot be read as text \("),
    ("a.parquet", b"PAR1", r"a\.parquet cannot be read as parquet \("),
    ("a.arrow", b"ARROW1", r"a\.arrow cannot be read as arrow \("),
    ("a.arrow", write_table(write_arrow, pa.table({"text": ["good", "badxyz"]})).replace(
        struct.pack("<3i", 0, 4, 10), struct.pack("<3i", 0, 4, 900_000_000)), r"cannot be read as arrow \(.*out of bo"),
    ("a.arrow", write_table(write_arrow, pa.table({"text": BAD_DICTIONARY})).replace(
        struct.pack("<3q", 0, 1, 1), struct.pack("<3q", 0, 1, 1 << 40)), r"cannot be read as arrow \(.*out of bounds"),
    ("a.xlsx", b"", r"suffix of input .*a\.xlsx is none of \.txt"),
    ("a.parquet.gz", b"", "where they hold lines"),
    ("a.parquet", write_table(pq.write_table, TAGS.select(["tags"])), r"no column 'text' of texts, .*: none\. Pass"),
    ("a.parquet", write_table(pq.write_table, pa.table({"text": ["x", None]})), r"record 2 of .* has no text"),
])
def test_what_cannot_be_read(runtime, classify_file, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        classify_file(runtime.TextClassifier(), tmp_path / name, tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_lists_of_strings_are_no_texts(runtime, classify_file, tmp_path):
    pq.write_table(TAGS, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has no column 'tags' of texts, .*may hold texts: review\. Pass"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.parquet", io.BytesIO(), "tags")


def test_what_cannot_be_written(runtime, classify_file, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(OSError, match=r"output .*none.out\.csv cannot be written \(No such file or directory\)"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "none" / "out.csv")
    with pytest.raises(ValueError, match="is the input, choose another"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "a\n"
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"^output .*folder\.csv is a folder: name a file\.$"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "folder.csv")
    (tmp_path / "out.csv").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write everything
    with pytest.raises(PermissionError, match=r"^output .*out\.csv is write-protected, choose another path\.$"):
        classify_file(runtime.TextClassifier(), tmp_path / "a.txt", tmp_path / "out.csv")
    assert names(tmp_path) == ["a.txt", "folder.csv", "out.csv"]


@pytest.fixture
def replaced(runtime, classify_file, tmp_path):
    """Write lines of JSON to a path, and return what ``look`` gives while the output is being written."""
    (tmp_path / "a.txt").write_text("a film\n")

    def write(output, look=lambda: None):
        seen = []

        class Looking(runtime.TextClassifier):
            def predict_array(self, texts, threads):
                seen.append(look())
                return super().predict_array(texts, threads)

        assert classify_file(Looking(), tmp_path / "a.txt", output) == 1
        return seen[0]

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_of_a_replaced_file_is_kept(replaced, tmp_path, mode):
    """And nobody may read meanwhile what is to replace a private file."""
    output = tmp_path / "out.jsonl"
    output.write_text("old")
    output.chmod(mode)
    meanwhile = replaced(output, (tmp_path / ".out.jsonl.tmp").stat)
    assert stat.S_IMODE(meanwhile.st_mode) == stat.S_IMODE(output.stat().st_mode) == mode
    assert json.loads(output.read_text())["text"] == "a film"


def test_a_file_of_another_owner_is_written_in_place(replaced, tmp_path, monkeypatch):
    def refused(*arguments):
        raise PermissionError

    output = tmp_path / "out.jsonl"
    output.write_text("old, and longer than the new one" * 9)
    before = output.stat()
    monkeypatch.setattr(os, "chown", refused)
    replaced(output)
    assert os.path.samestat(output.stat(), before)
    assert json.loads(output.read_text())["text"] == "a film"
    assert names(tmp_path) == ["a.txt", "out.jsonl"]


def test_a_link_stays_a_link(replaced, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.jsonl").symlink_to("folder/target")
    replaced(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").is_symlink()
    assert json.loads((tmp_path / "folder" / "target").read_text())["text"] == "a film"
    assert names(tmp_path) == ["a.txt", "folder", "out.jsonl"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv.gz", "parquet", "arrow"])
def test_a_pipe_stays_a_pipe(replaced, tmp_path, suffix):
    output, found = tmp_path / f"out.{suffix}", []
    os.mkfifo(output)
    if suffix in ("parquet", "arrow"):
        with pytest.raises(ValueError, match=f"is a pipe or a device, which takes no {suffix}: name a file, or wr"):
            replaced(output)
        return
    reader = threading.Thread(target=lambda: found.append(output.read_bytes()))
    reader.start()
    replaced(output)
    reader.join()
    assert b"a film" in (gzip.decompress(found[0]) if suffix.endswith("gz") else found[0])
    assert output.is_fifo()


def test_what_a_killed_run_has_left_is_written_over(replaced, tmp_path):
    (tmp_path / ".out.jsonl.tmp").write_text("half a line" * 99)
    replaced(tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "a film"
    assert names(tmp_path) == ["a.txt", "out.jsonl"]


def test_two_runs_into_one_output(replaced, tmp_path, monkeypatch):
    def second_run():
        with pytest.raises(BlockingIOError, match=r"^output .*out\.jsonl is being written by another process, wait"):
            replaced(tmp_path / "out.jsonl")

    replaced(tmp_path / "out.jsonl", second_run)
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "a film"
    flock = fcntl.flock

    def first_run_ends(file, how):
        os.replace(tmp_path / ".out.jsonl.tmp", tmp_path / "out.jsonl")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", first_run_ends)
    second_run()


def test_the_disk_has_a_file_before_it_gets_its_name(replaced, tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, name=name, call=call: done.append(name) or call(*arguments))
    replaced(tmp_path / "out.jsonl")
    assert done == ["fsync", "replace"]


def test_the_command_reads_files_if_there_is_pyarrow(folder, tmp_path):
    (tmp_path / "in.csv").write_text("review\ndull\n")
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}

    def run(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; {before}; from dendritic_bert_runtime.__main__ import main; sys.exit(main())"
        return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, cwd=tmp_path, text=True,
                              capture_output=True)

    done = run("pass", "--file", "in.csv", "--output", "out.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out.jsonl").read_text() == run("pass", "dull").stdout == run("pass", "-f", "in.csv").stdout
    done = run("sys.modules['pyarrow'] = None", "--file", "in.csv")
    assert done.returncode == 1
    assert 'pip install "dendritic-bert-runtime[files]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run("pass", "--file", "in.csv", "--column", "x")
    assert done.returncode == 1
    assert "in.csv has no column 'x' of texts" in done.stderr
    assert run("pass", "--column", "x").returncode == run("pass", "--file", "in.csv", "dull").returncode == 2
