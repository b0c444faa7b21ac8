"""Which column is read without being named, and under which name a column is carried through."""

import io

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.inference.columns import KeptColumns, choose_text_columns, text_column
from dendritic_bert.inference.readers import open_records

RESULTS = ["text", "label", "score"]


def write(folder, name: str, data: str):
    (folder / name).write_text(data)
    return folder / name


@pytest.mark.parametrize(("name", "data", "column"), [
    ("a.csv", "id,text,more\n1,a,b\n", "text"),
    ("a.csv", "id,review\n1,a film\n2,3\n", "review"),
    ("a.csv", "id,review,empty\n1.5,a film,\n", "review"),
    ("a.csv", "review\na\n", "review"),
    ("a.csv", "review\n", "review"),
    ("a.csv", "review\n\n", "review"),
    ("a.tsv", "review\n\n\n", "review"),
    ("a.tsv", "id\treview\n1\ta film\n", "review"),
    ("a.jsonl", '{"id": 1, "review": "a"}\n', "review"),
    ("a.jsonl", '{"id": 1, "text": null}\n', "text"),
    ("a.jsonl", '{"id": "a1"}\n{"id": "a2", "text": "good film"}\n', "text"),
    ("a.jsonl", '{"id": "a1"}\n{"id": "a2", "review": "good film"}\n', "text"),
    ("a.jsonl", '{"version": "1.0"}\n{"n": 1}\n', "text"),  # what some objects lack is not what is meant
    ("a.jsonl", '{"n": 1, "review": null}\n{"n": 2, "review": "good film"}\n', "review"),
    ("a.jsonl", "no JSON\n", "text"),  # reading says what is wrong with it
    ("a.txt", "id,review\n", "text"),
])
def test_the_column_that_is_read(tmp_path, name, data, column):
    assert text_column(open_records(write(tmp_path, name, data)), None) == column


def test_a_column_of_lines_of_text(tmp_path):
    records = open_records(write(tmp_path, "a.txt", "id,review\n"))
    assert text_column(records, "text") == "text"
    with pytest.raises(ValueError, match=r"^column is 'review', but .*a\.txt is read as lines of text, which have "
                                         r"none: leave it out, or pass input_format \(--input-format\), such as"):
        text_column(records, "review")


def test_the_column_of_a_table(tmp_path):
    pa.parquet.write_table(pa.table({"id": [1], "tags": [["a"]], "review": ["a"]}), tmp_path / "a.parquet")
    assert text_column(open_records(tmp_path / "a.parquet"), None) == "review"


@pytest.mark.parametrize(("data", "message"), [
    ("title,review\na,b\n", r"a\.csv has no column 'text': pass column \(--column\), one of title, review\."),
    ("id,n\n1,2\n", r"a\.csv has no column 'text': pass column \(--column\), one of id, n\."),
    ("id;review\n1;a\n", r"its header 'id;review' is one column, whose names ';' seems to separate"),
])
def test_where_there_is_a_choice_it_is_left_to_the_user(tmp_path, data, message):
    records = open_records(write(tmp_path, "a.csv", data))
    with pytest.raises(ValueError, match=message):
        records.check([text_column(records, None)])


PAIRS = {"text_column": "title", "text_pair_column": "review", "label_column": "topic"}


@pytest.mark.parametrize(("given", "trained", "columns", "warning"), [
    ((None, None), {"text_column": "review"}, ("review",), None),
    ((None, None), PAIRS, ("title", "review"), None),
    (("title", "review"), PAIRS, ("title", "review"), None),
    ((None, "topic"), PAIRS, ("title", "topic"), None),
    (("review", None), {"text_column": "title"}, ("review",), None),
    (("review", None), None, ("review",), None),
    (("review", None), PAIRS, ("review",), "trained on pairs, of the columns 'title' and 'review', but single texts"),
    (("title", "review"), {"text_column": "title"}, ("title", "review"), "trained on single texts, of the column 'tit"),
])
def test_the_columns_that_a_model_was_trained_on(tmp_path, recwarn, given, trained, columns, warning):
    """What is given wins; other kinds of texts than those of the training are said."""
    records = open_records(write(tmp_path, "a.csv", "id,title,review,topic\n1,a,b,c\n"))
    assert choose_text_columns(records, *given, trained) == columns
    assert len(recwarn) == (warning is not None)
    assert warning is None or warning in str(recwarn[0].message)


@pytest.mark.parametrize(("name", "data"), [
    ("a.txt", "a\nb\n"), ("a.jsonl", '{"text": "a"}\n'), ("a.csv", "text\na\n")])
def test_an_input_without_a_second_column_for_a_model_of_pairs(tmp_path, name, data):
    """A remedy that names a column would fail."""
    with pytest.warns(UserWarning, match=r"^the model was trained on pairs, of the columns 'title' and 'review', but "
                                         rf"single texts are read from .*{name}, which has no second column: pass an "
                                         r"input with both columns \(--file\)\.$"):
        assert choose_text_columns(open_records(write(tmp_path, name, data)), None, None, PAIRS) == ("text",)


def test_where_the_columns_of_the_training_are_not_there(tmp_path):
    one = open_records(write(tmp_path, "a.csv", "id,body\n1,a\n"))
    assert choose_text_columns(one, None, None, {"text_column": "review"}) == ("body",)
    several = open_records(write(tmp_path, "b.csv", "id,title,body\n1,a,b\n"))
    with pytest.raises(ValueError, match=r"b\.csv has no column 'review', on which the model was trained: pass column "
                                         r"\(--column\), one of id, title, body\.$"):
        choose_text_columns(several, None, None, {"text_column": "review"})


def test_a_stream_of_several_columns(tmp_path):
    """Its rows cannot be looked at before they are read."""
    with pytest.raises(ValueError, match=r"input has no column 'text': pass column \(--column\), one of id, review"):
        text_column(open_records(io.BytesIO(b"id,review\n1,a\n"), "csv"), None)
    assert text_column(open_records(io.BytesIO(b"review\na\n"), "csv"), None) == "review"


@pytest.mark.parametrize(("keep", "names", "written"), [
    (None, [], []),
    ("id", ["id"], ["id"]),
    (["score", "label", "id", "id"], ["score", "label", "id"], ["input_score", "input_label", "id"]),
    ("all", ["id", "label", "score"], ["id", "input_label", "input_score"]),
    (["review", "id"], ["review", "id"], ["review", "id"]),
])
def test_columns_that_are_kept(tmp_path, keep, names, written):
    records = open_records(write(tmp_path, "a.csv", "id,review,label,score\n1,a,b,2\n"))
    kept = KeptColumns(records, keep, ["review"], RESULTS, "parquet")
    assert (kept.names, [column.name for column in kept.columns]) == (names, written)


def test_second_texts_and_other_results(tmp_path):
    records = open_records(write(tmp_path, "a.csv", "text,second,label_1,label\na,b,c,d\n"))
    kept = KeptColumns(records, "all", ["text", "second"], ["text", "text_pair", "label_1", "score_1"], "parquet")
    assert [column.name for column in kept.columns] == ["input_label_1", "label"]


def test_kept_columns_have_names_of_their_own(tmp_path):
    """However many of the names that come to mind are there."""
    records = open_records(write(tmp_path, "a.csv", "text,label,input_label,input_input_label,score\na,b,c,d,e\n"))
    kept = KeptColumns(records, "all", ["text"], RESULTS, "parquet")
    assert [column.name for column in kept.columns] == [
        "input_input_input_label", "input_label", "input_input_label", "input_score"]
    alone = KeptColumns(records, "label", ["text"], RESULTS, "parquet")
    assert [column.name for column in alone.columns] == ["input_label"]


def test_the_keys_of_later_objects_are_kept(tmp_path):
    records = open_records(write(tmp_path, "a.jsonl", 'oops\n{"text": "a"}\n{"text": "b", "id": 7}\n'))
    assert KeptColumns(records, "all", ["text"], RESULTS, "parquet").names == ["id"]


def test_a_column_that_cannot_be_kept(tmp_path):
    records = open_records(write(tmp_path, "a.csv", "id,text\n1,a\n"))
    with pytest.raises(ValueError, match=r"column is 'no', which .*a\.csv does not have: the columns are id, text"):
        KeptColumns(records, ["id", "no"], ["text"], RESULTS, "parquet")
    assert KeptColumns(records, ["text", "id"], ["text"], RESULTS, "parquet").names == ["id"]  # text is written anyway


def test_types_of_kept_columns(tmp_path):
    """Those of the table, if all inputs have the same; text otherwise."""
    table = pa.table({"n": pa.array([1], pa.int16()), "kind": pa.array(["a"]).dictionary_encode(), "text": ["a"]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    pa.parquet.write_table(table.set_column(0, "n", pa.array([1.5])), tmp_path / "b.parquet")
    kept = KeptColumns(open_records(tmp_path / "a.parquet"), "all", ["text"], RESULTS, "parquet")
    assert [column.type for column in kept.columns] == [pa.int16(), pa.string()]
    records = open_records([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    both = KeptColumns(records, "all", ["text"], RESULTS, "parquet")
    assert [column.type for column in both.columns] == [None, pa.string()]


def test_types_of_kept_columns_of_views_and_run_ends(tmp_path):
    """Those of their values: Arrow cannot copy the rows of a view, and Parquet has no run ends."""
    table = pa.table({"text": ["a"], "view": pa.array(["a"], pa.string_view()),
                      "bytes": pa.array([b"a"], pa.binary_view()), "runs": pa.compute.run_end_encode(pa.array([1])),
                      "nested": pa.array([[{"a": "x"}]], pa.list_(pa.struct({"a": pa.string_view()})))})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    kept = KeptColumns(open_records(tmp_path / "a.arrow"), "all", ["text"], RESULTS, "parquet")
    assert [column.type for column in kept.columns] == [
        pa.large_string(), pa.large_binary(), pa.int64(), pa.list_(pa.struct({"a": pa.large_string()}))]


NOT_IN_PARQUET = {
    "interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    "intervals": pa.array([[(1, 2, 3)], None], pa.list_(pa.month_day_nano_interval())),
    "sparse union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]),
    "dense union": pa.UnionArray.from_dense(pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()),
                                            [pa.array([1]), pa.array(["y"])]),
    "empty struct": pa.array([{}, None], pa.struct([])),
    "empty structs": pa.array([[{}], None], pa.list_(pa.struct([]))),
    "no bytes": pa.array([b"", None], pa.binary(0)),
}
AS_TEXT = ["[1, 2, 3]", "[[1, 2, 3]]", "1", "1", "{}", "[{}]", '""']


@pytest.mark.parametrize(("values", "text"), [*zip(NOT_IN_PARQUET.values(), AS_TEXT)], ids=NOT_IN_PARQUET)
def test_types_that_parquet_does_not_have(tmp_path, values, text):
    """They become text there, and stay in Arrow."""
    table = pa.table({"kept": values, "text": ["a", "b"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    classifier = TextClassifier(small_model(), hugging_face_tokenizer())
    for name in ("out.parquet", "out.arrow"):
        classifier.classify_file(tmp_path / "a.arrow", tmp_path / name, keep_columns="kept")
    assert pa.parquet.read_table(tmp_path / "out.parquet").column("kept").to_pylist()[0] == text
    with pa.ipc.open_file(tmp_path / "out.arrow") as reader:
        assert reader.read_all().column("kept").combine_chunks().equals(values)


def test_a_time_that_parquet_cannot_hold(tmp_path):
    times = pa.array([0, None, -2**53, 2**62], pa.timestamp("s", "UTC"))
    table = pa.table({"time": times, "text": ["a", "b", "c", "d"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    classifier = TextClassifier(small_model(), hugging_face_tokenizer())
    with pytest.raises(ValueError, match=rf"a\.arrow, row 4: column 'time' is {2**62} seconds, which Parquet"):
        classifier.classify_file(tmp_path / "a.arrow", tmp_path / "out.parquet", keep_columns="time", resume=False)
    classifier.classify_file(tmp_path / "a.arrow", tmp_path / "out.arrow", keep_columns="time")
    with pa.ipc.open_file(tmp_path / "out.arrow") as reader:
        assert reader.read_all().column("time").combine_chunks().equals(times)
