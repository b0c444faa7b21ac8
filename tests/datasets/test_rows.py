"""GLUE rows: read as they stand in the file, encoded as BERT's tokenizer does, padded, and dropped at random."""

from itertools import chain

import datasets
import numpy as np
import pytest
import torch
from helpers import shared_path
from small_classifier import hugging_face_tokenizer

from dendritic_bert.datasets.glue import read_rows
from dendritic_bert.datasets.glue_tasks import TASKS
from dendritic_bert.datasets.rows import EncodedRows, RowDataset, Rows, encode_rows, pad_rows
from dendritic_bert.inference.tokenization import PackedTokenizer


def flat(rows: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(rows))


def write(path, content: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


# ---- files -----------------------------------------------------------------------------------------------------------


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
    """CR LF, a missing or doubled end of the file; what Unicode or old Macs call a line end is part of the sentence."""
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


# ---- the hub ---------------------------------------------------------------------------------------------------------


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


def test_the_hub_out_of_reach(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nand more lines")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(OSError, match=r"^nyu-mll/glue \(sst2\) cannot be fetched from the hub \(ConnectionError\)"):
        read_rows("sst2", "train")


# ---- ids -------------------------------------------------------------------------------------------------------------


TEXTS = ["The quick brown fox", "", "a charming and often affecting journey: ...", "unflinchingly bleak!", "dog, " * 9]


@pytest.mark.parametrize("max_length", [5, 6, 9, 10, 17, 200])
@pytest.mark.parametrize("engine", ["nanotoken", "tokenizers"])
def test_pairs_are_those_of_transformers(max_length, engine):
    """Every text against every text: ids, types and what truncation leaves of either."""
    if engine == "nanotoken":
        pytest.importorskip("nanotoken")
    theirs = hugging_face_tokenizer()
    theirs.backend_tokenizer.post_processor = pair_processor()
    firsts, seconds = map(list, zip(*[(a, b) for a in TEXTS for b in TEXTS]))
    rows = Rows((firsts, seconds), np.arange(len(firsts)), "")
    ours = encode_rows(rows, PackedTokenizer(theirs, engine=engine), max_length)
    plain = theirs(firsts, seconds)
    cut = theirs(firsts, seconds, truncation="longest_first", max_length=max_length)
    assert np.diff(ours.cu_seqlens).tolist() == list(map(len, cut["input_ids"]))
    assert ours.input_ids.tolist() == flat(cut["input_ids"])
    assert ours.token_type_ids.tolist() == flat(cut["token_type_ids"])
    assert ours.input_ids.dtype == np.int32
    assert ours.num_truncated == sum(len(ids) > max_length for ids in plain["input_ids"])


def pair_processor():
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
                              special_tokens=[("[CLS]", 4), ("[SEP]", 3)])


def test_single_texts_are_those_of_transformers():
    theirs = hugging_face_tokenizer()
    ours = encode_rows(Rows((TEXTS,), np.arange(5), ""), PackedTokenizer(theirs), 7)
    plain, cut = theirs(TEXTS)["input_ids"], theirs(TEXTS, truncation=True, max_length=7)["input_ids"]
    assert ours.input_ids.tolist() == flat(cut)
    assert (ours.token_type_ids, ours.num_truncated) == (None, sum(len(ids) > 7 for ids in plain))


def test_no_room_for_a_pair():
    with pytest.raises(ValueError, match=r"^max_length is 4, but two texts take at least 5: raise it\.$"):
        encode_rows(Rows((["a"], ["b"]), np.zeros(1), ""), PackedTokenizer(hugging_face_tokenizer()), 4)


# ---- batches ---------------------------------------------------------------------------------------------------------


def encoded(lengths: list[int], labels=None, types: bool = False) -> EncodedRows:
    """Rows of ids 2 5 6 7 ... 3, as [CLS] ... [SEP]."""
    rows = [[2, *range(5, 3 + length), 3] for length in lengths]
    ids = np.array(flat(rows), np.int32)
    labels = np.arange(len(lengths)) if labels is None else labels
    return EncodedRows(ids, np.cumsum([0, *lengths]), ids % 2 if types else None, labels, 0)


def test_padding():
    dataset = RowDataset(encoded([4, 2, 3], types=True))
    batch = pad_rows([dataset[i] for i in (0, 2, 1)])
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[2, 5, 6, 3], [2, 5, 3, 0], [2, 3, 0, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]],
        "token_type_ids": [[0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 0]],
        "labels": [0, 2, 1],
    }
    assert {values.dtype for values in batch.values()} == {torch.int64}
    regression = RowDataset(encoded([3], labels=np.array([2.5], np.float32)))
    assert pad_rows([regression[0]])["labels"].dtype == torch.float32
    assert "token_type_ids" not in pad_rows([regression[0]])


def test_word_dropout_statistics():
    """A share p of the words, each alike and anew in every epoch; [CLS] and [SEP] never."""
    length, reads, p = 50, 4000, 0.3
    dataset = RowDataset(encoded([length]), p, never_dropped=[0, 2, 3], seed=0)
    masks = np.array([dataset.set_epoch(epoch) or dataset[0]["attention_mask"] for epoch in range(reads)])
    assert masks[:, [0, -1]].all()
    kept = masks[:, 1:-1].mean(axis=0)
    assert np.abs(kept - (1 - p)).max() < 5 * np.sqrt(p * (1 - p) / reads)  # 1 in 20,000 for 48 places
    pairs = np.corrcoef(masks[:, 1:-1].T)[np.triu_indices(length - 2, 1)]
    assert np.abs(pairs).max() < 5.5 / np.sqrt(reads)
    assert len(np.unique(masks, axis=0)) > 0.99 * reads


def test_word_dropout_follows_its_seed_and_epoch_alone():
    def masks(seed, *epochs):
        np.random.seed(torch.randint(1 << 30, ()).item())  # noqa: NPY002 -- what must not count
        dataset = RowDataset(encoded([40] * 20), 0.5, never_dropped=[2, 3], seed=seed)
        for epoch in epochs:
            dataset.set_epoch(epoch)
        return np.stack([dataset[i]["attention_mask"] for i in range(20)])

    assert np.array_equal(masks(1, 0, 1, 2), masks(1, 2))
    assert not np.array_equal(masks(1, 2), masks(2, 2))
    assert not np.array_equal(masks(1, 1), masks(1, 2))


def test_no_word_dropout():
    dataset = RowDataset(encoded([9] * 5))
    assert all(dataset[i]["attention_mask"].all() for i in range(5))
    with pytest.raises(ValueError, match=r"^word_dropout is 1\.0, expected 0 <= word_dropout < 1\.$"):
        RowDataset(encoded([9]), 1.0)
