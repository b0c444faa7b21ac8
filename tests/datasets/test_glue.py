"""GLUE: files are read without interpreting quotes, the hub's columns are found, and errors name file and line."""

import datasets
import numpy as np
import pytest
from glue_files import write_task
from helpers import shared_path

from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.glue_tasks import TASKS


def write(path, content: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def test_a_quotation_mark_is_a_character(tmp_path):
    """A reader that honours quotes would join the first two rows into one."""
    write(tmp_path / "SST-2" / "train.tsv", 'sentence\tlabel\n"an open quote\t1\nand a close " here\t0\n"all"\t1\n')
    rows = read_rows("sst2", "train", str(tmp_path))
    assert rows.columns == (['"an open quote', 'and a close " here', '"all"'],)
    assert rows.labels.tolist() == [1, 0, 1]
    assert rows.labels.dtype == np.int64


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n"])
def test_line_ends(tmp_path, end, last):
    """Lines end in LF or CR LF, the last one also without; other line ends of Unicode or old Macs are text."""
    lines = ["sentence\tlabel", "one\u2028still one\x85\x0b\t0", "two\rstill two\t1"]
    write(tmp_path / "SST-2" / "dev.tsv", end.join(lines) + last)
    rows = read_rows("sst2", "dev", str(tmp_path / "SST-2"))
    assert rows.columns == (["one\u2028still one\x85\x0b", "two\rstill two"],)


def test_columns_of_every_task(tmp_path):
    """CoLA has no header, MRPC a byte order mark and a label in front, STS-B nine columns, RTE and QNLI words."""
    write(tmp_path / "CoLA" / "dev.tsv", "gj04\t0\t*\tThe ball is white red.\ngj04\t1\t\tIt rains.\n")
    write(tmp_path / "MRPC" / "dev.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta \"b\tc\n")
    write(tmp_path / "STS-B" / "dev.tsv", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\t"
          "sentence2\tscore\n0\tnews\tx\t2012\t1\tn\tn\ta\tb\t3.200\n")
    write(tmp_path / "RTE" / "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n")
    write(tmp_path / "QNLI" / "dev.tsv", "index\tquestion\tsentence\tlabel\n0\twho?\tme\tentailment\n")
    write(tmp_path / "WNLI" / "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n")
    found = {name: read_rows(name, "dev", str(tmp_path)) for name in TASKS if name not in ("sst2", "qqp", "mnli")}
    assert found["cola"].columns == (["The ball is white red.", "It rains."],)
    assert found["cola"].labels.tolist() == [0, 1]
    assert {name: rows.columns for name, rows in found.items() if name != "cola"} == {
        "mrpc": (['a "b'], ["c"]), "stsb": (["a"], ["b"]), "rte": (["a"], ["b"]), "qnli": (["who?"], ["me"]),
        "wnli": (["a"], ["b"])}
    names = {name: TASKS[name].labels[found[name].labels[0]] for name in ("mrpc", "rte", "qnli", "wnli")}
    assert names == {"mrpc": "equivalent", "rte": "not_entailment", "qnli": "entailment", "wnli": "entailment"}
    assert found["stsb"].labels.dtype == np.float32
    assert found["stsb"].labels.tolist() == [pytest.approx(3.2)]


def test_mnli_and_qqp_as_they_are_downloaded(tmp_path):
    """MNLI's label is the last of 12 (train) or 16 (dev) columns; line ends in questions of QQP break their rows."""
    for split, extra in (("train", ["label1"]), ("dev_mismatched", [f"label{i}" for i in range(1, 6)])):
        header = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse",
                  "sentence1_parse", "sentence2_parse", "sentence1", "sentence2", *extra, "gold_label"]
        row = [*map(str, range(8)), "a premise", "a hypothesis", *["neutral"] * len(extra), "contradiction"]
        (tmp_path / "MNLI").mkdir(exist_ok=True)
        (tmp_path / "MNLI" / f"{split}.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
        rows = read_rows("mnli", split, str(tmp_path))
        assert rows.columns == (["a premise"], ["a hypothesis"])
        assert TASKS["mnli"].labels[rows.labels[0]] == "contradiction"
    (tmp_path / "QQP").mkdir()
    (tmp_path / "QQP" / "train.tsv").write_text(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\twho?\twhat?\t0\n4\t5\t6\thow\n\twhen?\t1\n"
        "7\t8\t9\ta\tb\t1\n")
    rows = read_rows("qqp", "train", str(tmp_path))
    assert (rows.columns, rows.labels.tolist()) == ((["who?", "a"], ["what?", "b"]), [0, 1])


@pytest.mark.parametrize(("name", "split", "size", "share"), [  # GLUE's published sizes; share of the label with id 1
    ("sst2", "train", 67349, 37569 / 67349), ("sst2", "dev", 872, 444 / 872), ("cola", "train", 8551, 0.704),
    ("cola", "dev", 1043, 0.691), ("mrpc", "train", 3668, 0.674), ("mrpc", "dev", 408, 0.684),
    ("rte", "train", 2490, 0.498), ("rte", "dev", 277, 0.473), ("qnli", "dev", 5463, 2761 / 5463),
    ("wnli", "train", 635, 0.491), ("wnli", "dev", 71, 0.437), ("stsb", "train", 5749, None),
    ("stsb", "dev", 1500, None),
])
def test_real_files(name, split, size, share):
    rows = read_rows(name, split, str(shared_path("data/glue")))
    assert {len(rows.labels), *map(len, rows.columns)} == {size}
    assert all(text for column in rows.columns for text in column)
    if share is not None:
        assert np.mean(rows.labels == 1) == pytest.approx(share, abs=5e-4)
    else:
        assert 0 <= rows.labels.min() <= rows.labels.max() == 5


@pytest.mark.parametrize(("content", "message"), [
    ("sentence\tlabel\nfine\t1\nbad\t2\n", "train.tsv line 3 has the label '2', expected one of 0, 1."),
    ("sentence\tlabel\nfine\t1\n\nno label\n", "train.tsv line 4 has 1 fields, the first has 2"),
    ("sentence\tlabel\nfine\t1\nhalf of\ta text\t1\n", "train.tsv line 3 has 3 fields, the first has 2"),
    ("text\tlabel\nfine\t1\n", "train.tsv has no column 'sentence', only 'text', 'label'"),
    ("sentence\tlabel\n", "SST-2/train.tsv holds no row"),
    ("", "train.tsv has no column 'sentence'"),
])
def test_a_file_that_does_not_fit(tmp_path, content, message):
    write(tmp_path / "SST-2" / "train.tsv", content)
    with pytest.raises(ValueError, match=r"^.{0,300}$") as caught:
        read_rows("sst2", "train", str(tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [
    ("nan", r"train\.tsv line 2 has the label 'nan', expected a number\."),
    ("entailment", r"train\.tsv line 2 has the label 'entailment', expected a number\."),
])
def test_a_score_that_is_none(tmp_path, text, message):
    write_task(tmp_path, "stsb", {"train": 1})
    path = tmp_path / "STS-B" / "train.tsv"
    path.write_text(path.read_text().replace("4.500", text).replace("0.000", text))
    with pytest.raises(ValueError, match=message):
        read_rows("stsb", "train", str(tmp_path))


def test_a_split_that_is_not_there():
    with pytest.raises(ValueError, match=r"^split is 'dev', task 'mnli' has train, dev_matched, dev_mismatched\.$"):
        read_rows("mnli", "dev")
    with pytest.raises(ValueError, match=r"^split is 'test', task 'sst2' has train, dev\.$"):
        read_rows("sst2", "test")


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "train.tsv").write_bytes(b"sentence\tlabel\ncaf\xe9\t1\n")
    with pytest.raises(ValueError, match=r"train\.tsv is not UTF-8 at byte 18: convert it\.$"):
        read_rows("sst2", "train", str(tmp_path))


def test_a_folder_without_the_task(tmp_path):
    write(tmp_path / "SST-2" / "train.tsv", "sentence\tlabel\nfine\t1\n")
    with pytest.raises(FileNotFoundError, match=r"^data_dir .* holds no RTE/dev\.tsv, which task 'rte' needs: "):
        read_rows("rte", "dev", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no CoLA/train\.tsv"):
        read_rows("cola", "train", str(tmp_path / "SST-2"))  # another task's folder
    with pytest.raises(ValueError, match=r"^task is 'sst3', expected one of sst2, cola, mrpc, stsb, qqp, mnli, qnli, "):
        read_rows("sst3", "dev", str(tmp_path))


def test_rows_of_the_hub(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_dict({"sentence1": ["a", 'b"'], "sentence2": ["c", "d"], "label": [1, 0]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_rows("mrpc", "dev")
    assert rows.columns == (["a", 'b"'], ["c", "d"])
    assert rows.labels.tolist() == [1, 0]
    assert asked == [(("nyu-mll/glue", "mrpc"), {"split": "validation"})]


def test_mnli_of_the_hub(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_dict({"premise": ["a"], "hypothesis": ["c"], "label": [2]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_rows("mnli", "dev_matched").columns == (["a"], ["c"])
    assert asked == [(("nyu-mll/glue", "mnli"), {"split": "validation_matched"})]
