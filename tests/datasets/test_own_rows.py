"""Own rows as a benchmark: real tables, every kind of label, what is reported, and what is refused in one line."""

import csv
import io
import json
import tracemalloc

import numpy as np
import pytest
import torch
from helpers import shared_path
from listed_records import ListedRecords
from small_classifier import hugging_face_tokenizer

from dendritic_bert.datasets.own_rows import OwnRows
from dendritic_bert.datasets.rows import RowDataset


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def read_csv(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def tokenizer():
    return hugging_face_tokenizer()


def rows_of(encoded) -> list[list[int]]:
    return [encoded.input_ids[start:end].tolist() for start, end in zip(encoded.cu_seqlens, encoded.cu_seqlens[1:])]


@pytest.mark.parametrize(("name", "texts", "label"), [
    ("clinc150", ("text",), "intent"), ("irony", ("tweet",), "label")])
def test_a_real_table_with_a_dev_file(name, texts, label, tokenizer):
    folder = shared_path("data/own")
    rows = OwnRows.open(str(folder / f"{name}_train.csv"), str(folder / f"{name}_dev.csv"))
    theirs = {split: read_csv(folder / f"{name}_{split}.csv") for split in ("train", "dev")}
    names = sorted({row[label] for row in theirs["train"]})
    assert rows.settings["id2label"] == dict(enumerate(names))
    assert rows.settings["label2id"] == {name: number for number, name in enumerate(names)}
    assert (rows.settings["num_labels"], rows.settings["problem_type"]) == (len(names), "single_label_classification")
    assert (rows.num_train, rows.num_dev) == (len(theirs["train"]), len(theirs["dev"]))
    assert rows.class_counts.tolist() == [sum(row[label] == name for row in theirs["train"]) for name in names]
    assert list(rows.texts()) == list(rows.texts()) == [row[texts[0]] for row in theirs["train"]]
    train, dev = rows.encode(tokenizer, 30)
    for encoded, split in ((train, "train"), (dev["dev"], "dev")):
        assert [names[number] for number in encoded.labels] == [row[label] for row in theirs[split]]
        assert list(rows.rows(split)) == [(row[texts[0]],) for row in theirs[split]]
        few = [row[texts[0]] for row in theirs[split][:200]]
        assert rows_of(encoded)[:200] == tokenizer(few, truncation=True, max_length=30)["input_ids"]
    assert isinstance(train.input_ids.base, np.memmap)
    unknown = sum(tokenizer(row[texts[0]], truncation=True, max_length=30)["input_ids"].count(tokenizer.unk_token_id)
                  for split in theirs.values() for row in split)
    assert rows.report.num_unknown == unknown
    seen = {row[texts[0]].strip() for row in theirs["dev"]}
    assert rows.report.num_shared == sum(row[texts[0]].strip() in seen for row in theirs["train"])


def test_a_real_table_of_pairs_without_a_dev_file(tokenizer):
    """No option at all: title and description are the texts, the topic is the label, a tenth is held out."""
    path = shared_path("data/own") / "ag_news_train.csv"
    rows, again = (OwnRows.open(str(path)) for _ in range(2))
    theirs = read_csv(path)
    assert (rows.num_train, rows.num_dev) == (5400, 600)
    wanted = [(row["title"], row["description"], row["topic"]) for row in theirs]
    found = {split: [(*texts, rows.labels[number]) for texts, number in zip(rows.rows(split), rows.targets(split))]
             for split in ("train", "dev")}
    assert sorted(found["train"] + found["dev"]) == sorted(wanted)
    assert list(again.rows("dev")) == list(rows.rows("dev"))
    train, dev = rows.encode(tokenizer, 64)
    firsts, seconds = map(list, zip(*rows.rows("dev")))
    theirs = tokenizer(firsts, seconds, truncation="longest_first", max_length=64)
    assert len(dev["dev"].labels) == 600
    lengths = np.diff(dev["dev"].cu_seqlens)
    assert lengths.sum() == len(dev["dev"].token_type_ids) == len(dev["dev"].input_ids)
    assert set(np.unique(train.token_type_ids)) == {0, 1}
    assert "columns: text 'title', second text 'description', label 'topic'" in str(rows.report)
    assert "600 dev rows (held out, a share of 0.1 of each class)" in str(rows.report)


LABELS = {
    "single_label_classification": [["b", "a", "b"][i % 3] for i in range(60)],
    "multi_label_classification": [[["x", "y"], ["y"], []][i % 3] for i in range(60)],
    "regression": [i / 7 for i in range(60)],
}
TEXTS = [f"{['a fine', 'a dull', 'one more'][i % 3]} film of the year {i}" for i in range(60)]


def rows_in_memory(labels, **options) -> OwnRows:
    """The texts with these labels."""
    return OwnRows(ListedRecords({"text": TEXTS, "label": labels}), text_column="text", label_column="label", **options)


@pytest.mark.parametrize("problem_type", LABELS)
def test_batches_fit_the_loss_of_transformers(problem_type, tokenizer):
    """The labels of a batch are what the loss for that ``problem_type`` takes."""
    rows = rows_in_memory(LABELS[problem_type])
    assert rows.settings["problem_type"] == problem_type
    train, _ = rows.encode(tokenizer, 20)
    dataset = RowDataset(train)
    batch = rows.collate([dataset[i] for i in range(8)])
    num_labels = rows.settings["num_labels"]
    config = rows.model_class.config_class(
        vocab_size=len(tokenizer), hidden_size=8, num_attention_heads=1, num_hidden_layers=0, **rows.settings)
    output = rows.model_class(config)(**batch)
    assert output.logits.shape == (8, num_labels)
    assert torch.isfinite(output.loss)
    scores = rows.scores(np.zeros((rows.num_dev, num_labels), np.float32))
    assert 0 <= scores[rows.main_metric] <= 1
    assert (rows.majority is None) == (problem_type != "single_label_classification")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "stream"])
def test_formats(tmp_path, ending):
    records = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS["single_label_classification"])]
    if ending == "jsonl":
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        content = "".join(("\t" if ending == "tsv" else ",").join(row) + "\n"
                          for row in (["text", "label"], *(record.values() for record in records)))
        source = tmp_path / f"rows.{ending}"
        source.write_text(content)
    if ending == "stream":
        rows = OwnRows.open(io.BytesIO(source.read_bytes()), input_format="csv")
    else:
        rows = OwnRows.open([str(source)])
    assert sorted([*rows.rows("train"), *rows.rows("dev")]) == sorted((text,) for text in TEXTS)
    line = TEXTS.index(next(rows.rows("dev"))[0]) + (1 if ending == "jsonl" else 2)
    assert next(rows.places("dev")).endswith(f", line {line}")


@pytest.mark.parametrize("is_stream", [True, False])
def test_json_lines_whose_first_objects_have_no_label(tmp_path, is_stream):
    """The columns are the keys of the first objects together, so the id is not taken for the label."""
    rows = [{"id": i, "text": text} | ({"label": "ab"[i % 2]} if i > 2 else {}) for i, text in enumerate(TEXTS)]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = io.BytesIO(path.read_bytes()) if is_stream else str(path)
    rows = OwnRows.open(source, input_format="jsonl", on_error="skip")
    assert (rows.columns.label, rows.labels, rows.report.num_skipped) == ("label", ["a", "b"], 3)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("f.json", '[{"text": "a", "label": "b"}]', r"f\.json holds no JSON object in its first lines: every line must be "
     r"one object, so write a list, or objects over several lines, as one object a line\.$"),
    ("f.json", '{\n  "text": "a",\n  "label": "b"\n}\n', r"f\.json holds no JSON object in its first lines: every "),
    ("f.csv", "", r"f\.csv is empty: name a file with a line of names and with rows\.$"),
    ("f.txt", "a\tb\n", r"f\.txt is read as lines of text, and a table to train on has texts and labels: pass "
     r"input_format, such as csv, and delimiter if it is no comma\.$"),
    ("f.csv", "text,label,label\n" + "a b c,x,y\nd e f,y,x\n" * 9, r"f\.csv has several columns that may hold the "
     r"labels, 'label', 'label': give each a name of its own\.$"),
    ("f.csv", "text,label\ra b c,x\rd e f,y\r" * 9, r"lines end in CR alone, save the table with LF or CRLF\.$"),
])
def test_files_that_are_no_table(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(ValueError, match=message):
        OwnRows.open(str(tmp_path / name))


@pytest.mark.parametrize("header", ['"text"\t"label"', 'text\tlabel', '"text" of a row\tlabel'])
def test_quotes_in_tsv(tmp_path, header):
    """TSV has none: lone ones belong to the texts, and a header that is quoted throughout is refused."""
    path = tmp_path / "f.tsv"
    path.write_text(f"{header}\n" + "".join(f'"{text}"\t{"ab"[i % 2]}\n' for i, text in enumerate(TEXTS)))
    if header.endswith('"'):
        with pytest.raises(ValueError, match=r'f\.tsv seems to be quoted, as its first name is "text", and TSV has no '
                                             r"quotes: pass input_format csv and delimiter tab\.$"):
            OwnRows.open(str(path))
        rows = OwnRows.open(str(path), input_format="csv", delimiter="tab")
        assert (rows.columns.all, next(iter(rows.texts()))) == (("text", "label"), TEXTS[0])
    else:
        assert next(iter(OwnRows.open(str(path)).texts())) == f'"{TEXTS[0]}"'


def test_several_files_and_a_pattern(tmp_path):
    for part in range(3):
        write_csv(tmp_path / f"part-{part}.csv", ["text", "label"],
                  zip(TEXTS[part::3], LABELS["single_label_classification"]))
    rows = OwnRows.open(str(tmp_path / "part-*.csv"), [str(tmp_path / "part-0.csv"), str(tmp_path / "part-1.csv")])
    assert (rows.num_train, rows.num_dev) == (60, 40)
    assert list(rows.places("dev"))[20].endswith("part-1.csv, line 2")
    assert rows.report.num_shared == 40


def test_labels_of_strings_with_a_separator(tmp_path):
    path = write_csv(tmp_path / "f.csv", ["text", "tags"], zip(TEXTS, ["x;y", "y", ""] * 20))
    rows = OwnRows.open(path, label_separator=";")
    assert rows.labels == ["x", "y"]
    assert rows.targets("train").sum() + rows.targets("dev").sum() == 60
    assert rows.targets("dev").shape == (6, 2)


@pytest.mark.parametrize(("tags", "found"), [
    (["urgent", ""], "30 of 60 rows have the label 'urgent', the others none, in column 'tags'"),
    (["urgent", "urgent; urgent"], "all 60 rows have the label 'urgent' in column 'tags'"),
    (["", ";"], "no row has a label in column 'tags'")])
def test_fewer_than_two_labels_where_a_row_may_have_several(tmp_path, tags, found):
    path = write_csv(tmp_path / "f.csv", ["text", "tags"], zip(TEXTS, tags * 30))
    with pytest.raises(ValueError, match=rf"f\.csv: {found}: name another label_column, or add rows of another class"):
        OwnRows.open(path, label_separator=";")


def test_more_labels_than_rows():
    """Where 60 tags stand once and 2 often, these can be learnt; where all tags stand once, nothing can."""
    often = [["often"], ["sometimes"]] * 30
    tags = [[*several, f"tag {number}"] for number, several in enumerate(often)]
    assert len(rows_in_memory(tags).labels) == 62
    with pytest.raises(ValueError, match=r"column 'label' has 120 different labels in 60 rows: name another label_"):
        rows_in_memory([[f"tag {number}", f"tag {number + 60}"] for number in range(60)])


def test_new_rows_for_a_model(tmp_path):
    """A model's labels come first; where rows are only scored, others are an error that names row and label."""
    path = write_csv(tmp_path / "f.csv", ["text", "label"], zip(TEXTS, LABELS["single_label_classification"]))
    assert OwnRows.open(path, known_labels=["z", "b"]).labels == ["z", "b", "a"]
    scored = OwnRows.open(None, path, known_labels=["b", "a"])
    assert (scored.labels, scored.num_train, scored.num_dev, scored.report) == (["b", "a"], 0, 60, None)
    assert scored.encode(hugging_face_tokenizer(), 9)[0] is None
    with pytest.raises(ValueError, match=r"f\.csv, line 3: the label 'a' is none of the 1 labels of the training"):
        OwnRows.open(None, path, known_labels=["b"])


def test_a_fraction_of_the_training_rows():
    rows = rows_in_memory(LABELS["single_label_classification"], fraction=0.5)
    assert (rows.num_train, rows.num_dev, rows.class_counts.sum()) == (27, 6, 27)


WHOLE = [["a fine film", "pos"], ["a dull film", "neg"]] * 10


@pytest.mark.parametrize(("header", "rows", "dev", "message"), [
    (["text", "label"], [*WHOLE, ["no label", ""]], None,
     r"train\.csv, line 22: the label in column 'label' is '': give the row one, or leave such rows out with on_error"),
    (["text", "label"], [*WHOLE, ["no label", "nan"]], None, r"line 22: the label in column 'label' is 'nan': give"),
    (["text", "label"], [*WHOLE, ["one", "two", "three"]], None, r"train\.csv, line 22: 3 columns for the header's 2"),
    (["text", "label"], [["a fine film", "pos"]] * 12, None,
     r"train\.csv: all 12 rows have the label 'pos' in column 'label': name another label_column, or add rows"),
    (["text", "label"], [["a fine film", "pos"], ["a dull film", "neg"]], None,
     r"train\.csv: column 'label' has 2 different labels in 2 rows: name another label_column, or add rows"),
    (["text", "label"], [[f"film {i}", f"what i think of film number {i}"] for i in range(12)], None,
     r"train\.csv: the label column 'label' looks like text, 12 different values in 12 rows"),
    (["text", "label"], WHOLE, [["a film", "mixed"]],
     r"dev\.csv, line 2: the label 'mixed' is none of the 2 labels of the training \(neg, pos\): mend it"),
    (["text", "topic"], WHOLE, [["a film", "pos"]],
     r"dev\.csv has no column 'topic', which the training rows have: its columns are 'text', 'label', rename "
     r"the one that is meant\.$"),
    (["text;label"], [["well", " a film;pos"]], None, r"train\.csv has one column only, .* pass delimiter ';'\.$"),
    (["text", "label"], [], None, r"train\.csv holds no row: name a file that does\.$"),
])
def test_bad_input(tmp_path, header, rows, dev, message):
    train = write_csv(tmp_path / "train.csv", header, rows)
    dev_file = dev and write_csv(tmp_path / "dev.csv", ["text", "label"], dev)
    with pytest.raises(ValueError, match=message) as caught:
        OwnRows.open(train, dev_file)
    assert "\n" not in str(caught.value)


def test_a_column_in_which_most_classes_have_one_row(tmp_path):
    """It is not taken by itself; named, or beside the classes of a model, it may be."""
    customers = [f"c{max(0, number - 5)}" for number in range(60)]
    path = write_csv(tmp_path / "f.csv", ["text", "customer"], zip(TEXTS, customers))
    message = (r"f\.csv: 54 of the 55 different labels in column 'customer' have one row each: name the column of the "
               r"labels with label_column, be it this one, or add rows\.$")
    with pytest.raises(ValueError, match=message):
        OwnRows.open(path)
    assert len(OwnRows.open(path, label_column="customer").labels) == 55
    assert len(OwnRows.open(path, known_labels=["c1"]).labels) == 55


def test_rows_that_are_left_out(tmp_path):
    path = write_csv(tmp_path / "f.csv", ["text", "label"], [*WHOLE, ["no label", ""], ["a", "b", "c"], ["", "pos"]])
    rows = OwnRows.open(path, on_error="skip")
    assert (rows.num_train + rows.num_dev, rows.report.num_skipped, rows.report.num_empty) == (21, 2, 1)
    assert sorted([*rows.places("train"), *rows.places("dev")])[-1].endswith("line 9")
    assert f"{path}, line 24" in [*rows.places("train"), *rows.places("dev")]


@pytest.mark.parametrize("names", [["text", "label"], ["msg", "team"]])
def test_rows_that_are_all_malformed(tmp_path, names):
    """As those of R's write.table, whose header has no name for the row names; of dev rows, too."""
    path = write_csv(tmp_path / "f.csv", names, [[number, *row] for number, row in enumerate(WHOLE)])
    message = (r"f\.csv holds no row that can be read, all 20 are malformed: \S+f\.csv, line 2: 3 columns for "
               r"the header's 2, if the header lacks a name for the first column, as R's write\.table leaves it out, ")
    with pytest.raises(ValueError, match=message):
        OwnRows.open(path, on_error="skip")
    with pytest.raises(ValueError, match=message):
        OwnRows.open(write_csv(tmp_path / "whole.csv", names, WHOLE), path, on_error="skip", text_column=names[0])


def test_memory_does_not_grow_with_the_texts(tmp_path, tokenizer, monkeypatch):
    """Of a row are kept a digest, a label, a length and flags, but no text and no ids."""
    monkeypatch.setattr("dendritic_bert.datasets.survey.BATCH_ROWS", 100)
    monkeypatch.setattr("dendritic_bert.datasets.row_sample.BATCH_ROWS", 100)
    monkeypatch.setattr("dendritic_bert.datasets.row_sample.SAMPLE_ROWS", 100)

    def peak(size: int) -> int:
        path = write_csv(tmp_path / f"{size}.csv", ["text", "label"],
                         ((f"{i} " + "a long text about a film " * 8, "ab"[i % 2]) for i in range(size)))
        tracemalloc.start()
        rows = OwnRows.open(path, folder=tmp_path)
        train, _ = rows.encode(tokenizer, 64)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(train.input_ids) > 40 * len(train.labels)
        return found

    peak(500)  # what is built once
    small, large = peak(4000), peak(7000)  # both more than the block that is read at once
    assert large - small < 3000 * 100  # bytes; a text takes 200, its ids 100 and more
