"""Texts, and texts with logits, from files of the forms that are said."""

import gzip
import lzma

import pytest

from dendritic_bert.datasets.natural_text import away_from_dev, read_logits, read_texts


def test_texts_of_files_of_several_forms(tmp_path):
    (tmp_path / "a.txt").write_text(" one text\n\nanother\none text\n")
    with lzma.open(tmp_path / "b.txt.xz", "wt") as file:
        file.write("another\nof xz\n")
    with lzma.open(tmp_path / "c.csv.xz", "wt") as file:
        file.write('id,text\n1,"a, table"\n')
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write('{"text": "of json", "other": "x"}\n')
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt.xz", "c.csv.xz", "d.jsonl.gz")]
    assert read_texts(files) == ["one text", "another", "of xz", "a, table", "of json"]
    assert read_texts([]) == []


def test_bytes_that_are_not_utf_8_are_said(tmp_path):
    (tmp_path / "a.txt").write_bytes("café\n".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"a\.txt: 1 byte not of UTF-8, replaced by U\+FFFD: where a file "):
        assert read_texts([str(tmp_path / "a.txt")]) == ["caf\ufffd"]


def test_the_column_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("title,body\nx,y\n")
    assert read_texts([str(path)], "body") == ["y"]
    with pytest.raises(ValueError, match=r"has 2 columns of strings \(title, body\): name one as text_column\.$"):
        read_texts([str(path)])
    lines = tmp_path / "b.txt"
    lines.write_text("z\n1\n")
    assert read_texts([str(path), str(lines)], "body") == ["y", "z", "1"], "lines of text have no columns to choose"
    lines.write_text("1\n")
    assert read_texts([str(lines)]) == ["1"]
    path.write_text("body\n")
    with pytest.raises(ValueError, match="no text is found there: name another file"):
        read_texts([str(path)], "body")


def test_logits_of_two_classes_may_be_a_margin(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("3\ta film\n-1 \tanother, a \"quote\n2\ta film\n")
    assert read_logits([str(path)], 2) == {"a film": (-1.0, 1.0), "another, a \"quote": (0.5, -0.5)}
    path.write_text("1\t2\t3\ta film\n")
    assert read_logits([str(path)], 3) == {"a film": (1.0, 2.0, 3.0)}


@pytest.mark.parametrize("line", ["a film", "x\ta film", "nan\ta film", "1\t2\t3\ta film", "text\tmargin"])
def test_a_line_of_another_form(tmp_path, line):
    path = tmp_path / "a.tsv"
    path.write_text(f"1\tfine\n{line}\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 2 is not a margin, a tab and a text: name files of that form"):
        read_logits([str(path)], 2)


def test_what_comes_close_to_a_dev_row_is_left_out():
    dev = ["the cast is so very warm and fine", "dull"]
    assert away_from_dev(["Dull", "dull film", "cast is so very warm and"], dev) == ["dull film"]
