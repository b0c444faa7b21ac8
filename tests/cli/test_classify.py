"""`classify`: where texts come from and results go to, resuming, and what is said beside the results."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from command_line import NO_BACKEND, TEXTS, from_json, labelled, run_apart, start
from helpers import REPOSITORY
from small_classifier import MAX_LENGTH, hugging_face_tokenizer, small_model
from transformers import pipeline

from dendritic_bert import cli
from dendritic_bert.inference.classifier import TextClassifier


def test_texts_from_the_command_line(run, model_path, expected):
    status, out, err = run("classify", "--model", model_path, *TEXTS)
    assert (status, err) == (0, "")
    assert from_json(out) == labelled(TEXTS, expected)


@pytest.mark.parametrize("source", [[], ["-"], ["--file", "-"]])
def test_texts_from_standard_input(run, model_path, expected, source):
    status, out, err = run("classify", "--model", model_path, *source, stdin="\n".join(TEXTS).encode() + b"\n")
    assert (status, err) == (0, "")
    assert from_json(out) == labelled(TEXTS, expected)


def test_a_pipe_between_two_programs(model_path, expected):
    """Only results on standard output; what was cut or replaced is counted once, on standard error."""
    stdin = b"".join(text.encode() + b"\n" for text in TEXTS) + b"caf\xe9 \xff\n" + b"fox " * 100 + b"\n"
    status, out, err = run_apart("classify", "--model", model_path, "--batch-size", "2", stdin=stdin)
    assert status == 0
    assert from_json(out)[:len(TEXTS)] == labelled(TEXTS, expected)
    assert from_json(out)[len(TEXTS)][0] == "caf\ufffd \ufffd"
    assert err == (f"dendritic-bert: texts classified: 6; cut to the {MAX_LENGTH} tokens of the model: 1; "
                   "bytes that are not UTF-8, replaced by U+FFFD: 2\n")


@pytest.mark.parametrize(("format", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_output_formats(run, model_path, expected, tmp_path, format, delimiter):
    """The format goes by --format, else by the suffix; a file is the same as standard output."""
    texts = TEXTS[:2]
    status, out, _ = run("classify", "--model", model_path, "--format", format, *texts)
    header, *rows = csv.reader(io.StringIO(out, newline=""), delimiter=delimiter)
    assert (status, header) == (0, ["text", "label", "score"])
    assert [(text, label, float(score)) for text, label, score in rows] == labelled(texts, expected)
    path = tmp_path / f"out.{format}"
    status, nothing, err = run("classify", "--model", model_path, "--output", path, *texts)
    assert (status, nothing, path.read_text()) == (0, "", out)
    assert err == f"dendritic-bert: texts classified into {path}: 2\n"


@pytest.mark.parametrize(("name", "options"), [
    ("in.csv", []), ("in.jsonl", []), ("in", ["--input-format", "csv"]), ("in.txt", ["--input-format", "jsonl"])])
def test_files_with_a_column(run, model_path, expected, tmp_path, name, options):
    path = tmp_path / name
    if "csv" in [*options, path.suffix[1:]]:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["id", "review"], *enumerate(TEXTS)])
    else:
        path.write_text("".join(json.dumps({"review": text}) + "\n" for text in TEXTS))
    status, out, _ = run("classify", "--model", model_path, "--file", path, "--column", "review", *options)
    assert status == 0
    assert from_json(out) == labelled(TEXTS, expected)


def test_texts_that_no_line_of_a_file_could_hold(run, model_path):
    """Line ends, a leading dash after --, and a byte that is not UTF-8, as the system hands it over."""
    status, out, err = run("classify", "--model", model_path, "--", "two\nlines", "--help", "caf\udce9")
    assert status == 0
    assert [text for text, _, _ in from_json(out)] == ["two\nlines", "--help", "caf\ufffd"]
    assert "replaced by U+FFFD: 1" in err


def test_an_interrupted_run_is_gone_on_with(run, model_path, tmp_path):
    path, output = tmp_path / "in.txt", tmp_path / "out.json"
    path.write_text("".join(f"fox {i}\n" for i in range(200_000)))
    command = ("classify", "--model", model_path, "--file", path, "--output", output)
    process = start(*command, "--batch-size", "1")  # 20 seconds of work
    journal = tmp_path / "out.json.partial.json"
    while not (journal.exists() and "position" in journal.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err == b"dendritic-bert: interrupted (the same command goes on where this one ended)\n"
    assert not output.exists()

    status, _, err = run(*command)
    assert status == 0
    assert f"texts classified into {output}: 200000; of them by an earlier run: " in err
    assert [text for text, _, _ in from_json(output.read_text())] == [f"fox {i}" for i in range(200_000)]


def test_restart(run, model_path, tmp_path):
    """Starts over what an earlier run has left, and nothing else."""
    path, output = tmp_path / "in.jsonl", tmp_path / "out.json"
    path.write_text('{"text": "the fox"}\n{}\n')
    command = ("classify", "--model", model_path, "--file", path, "--output", output)
    assert run(*command)[0] == 1
    assert sorted(left.name for left in tmp_path.iterdir()) == ["in.jsonl", "out.json.partial", "out.json.partial.json"]
    path.write_text('{"text": "another fox"}\n')
    status, _, err = run(*command)
    assert status == 1
    assert "was begun with another input" in err
    assert run(*command, "--restart")[0] == 0
    assert sorted(left.name for left in tmp_path.iterdir()) == ["in.jsonl", "out.json"]


@pytest.mark.parametrize(("flags", "options"), [
    (["--top-k", "1"], {"top_k": 1}), (["--top-k", "all", "--function-to-apply", "none"],
                                       {"top_k": None, "function_to_apply": "none"}),
    (["--threshold", "0.6"], {"threshold": 0.6}), (["--abstain-below", "0.8"], {"abstain_below": 0.8})], ids=str)
def test_other_answers(run, model_path, flags, options):
    status, out, err = run("classify", "--model", model_path, *flags, *TEXTS)
    assert (status, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    for record, answer in zip(records, TextClassifier.from_pretrained(model_path)(TEXTS, **options), strict=True):
        said = record["labels"] if isinstance(answer, list) else [{name: record[name] for name in ("label", "score")}]
        assert said == [{**one, "score": pytest.approx(one["score"], abs=6e-7)}
                        for one in (answer if isinstance(answer, list) else [answer])]


def test_all_scores_of_pairs(run, model_path, tmp_path):
    (tmp_path / "in.csv").write_text("id,first,second\n7,the quick fox,lazy dog\n8,bleak!,\n")
    command = ("classify", "--model", model_path, "--file", tmp_path / "in.csv", "--column", "first",
               "--text-pair-column", "second", "--all-scores", "--format", "tsv")
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    labels, scores = TextClassifier.from_pretrained(model_path).predict_array(
        ["the quick fox", "bleak!"], ["lazy dog", ""])
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["text", "text_pair", "label", "score", "score_negative", "score_positive"]
    assert [row[:3] for row in rows[1:]] == [["the quick fox", "lazy dog", ["negative", "positive"][labels[0]]],
                                            ["bleak!", "", ["negative", "positive"][labels[1]]]]
    assert [[float(score) for score in row[4:]] for row in rows[1:]] == [
        pytest.approx(row.tolist(), abs=6e-7) for row in scores]


def test_several_targets_of_a_regression(run, tmp_path, capsysbinary):
    """All of them are written, as transformers' pipeline gives them, and none hides behind the largest."""
    hugging_face_tokenizer().save_pretrained(tmp_path)
    small_model(num_labels=3, problem_type="regression").save_pretrained(tmp_path)
    ranked = pipeline("text-classification", model=str(tmp_path), device="cpu")("the fox", top_k=None)
    targets = [target["score"] for target in sorted(ranked, key=lambda target: target["label"])]
    capsysbinary.readouterr()  # the bars of transformers
    status, out, err = run("classify", "--model", tmp_path, "the fox")
    assert (status, err) == (0, "")
    assert list(json.loads(out)["scores"].items()) == [
        (f"LABEL_{number}", pytest.approx(target, abs=2e-6)) for number, target in enumerate(targets)]
    (tmp_path / "in.csv").write_text("text\nthe fox\n")
    _, out, _ = run("classify", "--model", tmp_path, "--file", tmp_path / "in.csv", "--format", "csv")
    header, row = (line.split(",") for line in out.splitlines())
    assert header == ["text", "label", "score", "score_LABEL_0", "score_LABEL_1", "score_LABEL_2"]
    assert [float(cell) for cell in row[3:]] == pytest.approx(targets, abs=2e-6)


def test_the_columns_of_the_training(run, tmp_path, monkeypatch, capsysbinary):
    """They are read where none is named, and said; single texts for a model of pairs are said, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("text,first,second\n7,the quick fox,lazy dog\n")
    pair = {"text_column": "first", "text_pair_column": "second"}
    for folder, columns in (("pairs", pair), ("single", {"text_column": "first"})):
        hugging_face_tokenizer().save_pretrained(folder)
        small_model(training_columns=columns).save_pretrained(folder)
    capsysbinary.readouterr()  # the bars of transformers
    status, out, err = run("classify", "--model", "pairs", "--file", "in.csv")
    assert (status, err) == (0, "dendritic-bert: the texts are pairs of the columns first and second\n")
    assert (json.loads(out)["text"], json.loads(out)["text_pair"]) == ("the quick fox", "lazy dog")
    status, out, err = run("classify", "--model", "pairs", "--file", "in.csv", "--column", "text")
    assert (status, json.loads(out)["text"], err.count("\n")) == (0, "7", 1)
    assert err.startswith("dendritic-bert: warning: the model was trained on pairs, of the columns 'first' and")
    assert err.endswith(", of the column 'text': name the second column with text_pair_column (--text-pair-column).\n")
    for source, texts, stdin in (("input", ["a", "b"], b""), ("standard input", [], b"a\nb\n")):
        status, out, err = run("classify", "--model", "pairs", *texts, stdin=stdin)
        assert (status, out.count("\n")) == (0, 2)
        assert err == ("dendritic-bert: warning: the model was trained on pairs, of the columns 'first' and 'second', "
                       f"but single texts are read from {source}, which has no second column: pass an input with both "
                       "columns (--file).\n")
    status, out, err = run("classify", "--model", "single", "--file", "in.csv")
    assert (status, json.loads(out)["text"]) == (0, "the quick fox")
    assert err == "dendritic-bert: the texts are those of column first, on which the model was trained\n"


def test_a_run_is_not_continued_with_other_answers(run, model_path, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "the fox"}\n{}\n')
    command = ("classify", "--model", model_path, "--file", tmp_path / "in.jsonl", "--output", tmp_path / "out.json")
    assert run(*command, "--threshold", "0.5")[0] == 1
    status, _, err = run(*command, "--threshold", "0.6")
    assert status == 1
    assert "was begun with another threshold" in err


@pytest.mark.parametrize(("flags", "status", "message"), [
    (["--top-k", "0"], 2, "argument --top-k: '0' is not a whole number of at least 1"),
    (["--threshold", "0.5", "--abstain-below", "0.5"], 1, "abstain_below is for the best label alone"),
    (["--text-pair-column", "b"], 2, "--text-pair-column, --keep-columns and --delimiter describe a file, but TEXT"),
    (["--device", "nowhere"], 1, "device is 'nowhere', on which torch cannot compute here"),
], ids=str)
def test_flags_that_do_not_go_together(run, model_path, flags, status, message):
    code, out, err = run("classify", "--model", model_path, "fox", *flags)
    assert (code, out, err.count("\n")) == (status, "", 1)
    assert message in err


@pytest.mark.parametrize(("choice", "how", "lines"), [("skip", "skipped", 2), ("null", "written as null", 3)])
def test_malformed_records_are_counted_and_reported(run, model_path, tmp_path, monkeypatch, choice, how, lines):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id,text\n1,good\n2,Good start, but bad\n3,fine\n")
    status, out, err = run("classify", "--model", model_path, "--file", "in.csv", "--on-error", choice)
    assert (status, len(out.splitlines())) == (0, lines)
    assert err == (f"dendritic-bert: texts classified: 2; malformed records {how}: 1; the first of them: in.csv, "
                   "line 3: 3 columns for the header's 2, quote a text that holds a comma or a line end\n")
    status, _, err = run("classify", "--model", model_path, "--file", "in.csv")
    assert status == 1
    assert err.startswith("dendritic-bert: error: in.csv, line 3: ")


def test_a_text_that_is_the_name_of_a_file(run, model_path, tmp_path, monkeypatch):
    """It is classified, as it was asked for, and the flag is named that reads the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text\nfox\n")
    status, out, err = run("classify", "--model", model_path, "reviews.csv")
    assert (status, [text for text, _, _ in from_json(out)]) == (0, ["reviews.csv"])
    assert err == ("dendritic-bert: hint: reviews.csv is taken as a text, for what is in that file pass "
                   "--file reviews.csv\n")
    assert run("classify", "--model", model_path, "reviews.csv", "b")[2] == ""


def test_nothing_to_classify_at_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert cli.main(["classify"]) == 2
    assert "there are no texts: pass TEXT, --file F or texts on standard input" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the redirections are those of bash")
def test_streams_that_are_closed_and_paths_that_are_pipes(model_path, tmp_path):
    """Each line is a shell's; the files it makes say what went where. Every stream is closed in one of them."""
    (tmp_path / "in.txt").write_text("good film\nbad film\n")
    script = """
    export LC_ALL=C.UTF-8
    c() { "$1" -m dendritic_bert classify --model "$2" "${@:3}"; }
    c "$@" --file in.txt -o named.json >&- <&- 2> report || exit 1
    c "$@" --file <(cat in.txt) -o >(cat > substituted.json) 2>&- > nothing || exit 2
    wait $!
    """
    done = subprocess.run(["bash", "-c", script, "bash", sys.executable, model_path], cwd=tmp_path, timeout=240,
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stderr
    expected = (tmp_path / "named.json").read_text()
    assert [text for text, _, _ in from_json(expected)] == ["good film", "bad film"]
    assert (tmp_path / "substituted.json").read_text() == expected
    assert (tmp_path / "nothing").read_text() == ""
    assert (tmp_path / "report").read_text() == "dendritic-bert: texts classified into named.json: 2\n"


def test_standard_streams_that_are_closed(model_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["classify", "--model", model_path]) == 2
    assert "there are no texts: pass TEXT" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["classify", "--model", model_path, "fox"]) == 1
    assert capsys.readouterr().err.endswith("error: standard output is closed: pass the path of an output.\n")
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["classify", "--model", model_path, "fox"]) == 1


def test_a_reader_that_has_had_enough(model_path):
    """Each line of a live stream is answered at once; where the answer is no longer read, the program ends quietly."""
    process = start("classify", "--model", model_path, "--batch-size", "1", "--threads", "1")
    process.stdin.write(b"the quick brown fox\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "the quick brown fox"
    process.stdout.close()
    process.stdin.write(b"one more\n")
    process.stdin.flush()
    assert process.wait(timeout=60) == 0  # with its standard input still open
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()


def test_the_embedded_model(run):
    status, out, _ = run("classify", "a masterpiece: funny, moving and beautifully acted", "dull, bleak and a mess")
    assert status == 0
    assert [label for _, label, _ in from_json(out)] == ["positive", "negative"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_an_output_without_room(run, model_path):
    status, out, err = run("classify", "--model", model_path, "--output", "/dev/full", stdin=b"a\n")
    assert (status, out) == (1, "")
    assert err == ("dendritic-bert: error: output /dev/full cannot be written (No space left on device): make room for "
                   "it.\n")


def test_a_forced_backend_that_is_not_there(model_path):
    status, out, err = run_apart("classify", "--model", model_path, stdin=b"a\n", DENDRITIC_BERT_BACKEND="quantum")
    assert (status, out) == (1, "")
    assert err.startswith(f"dendritic-bert: error: {NO_BACKEND}")
    assert err.count("\n") == 1


def test_columns_of_several_files(run, model_path, tmp_path, monkeypatch):
    """The only column of strings is read, and said to be; patterns and other delimiters, columns carried through."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        (tmp_path / f"part-{number}.csv").write_text(f"id;label;review\n{number};0.5;fox {number}\n")
    status, out, err = run("classify", "--model", model_path, "--file", "part-2.csv", "part-1*.csv", "--delimiter", ";",
                           "--keep-columns", "label,id", "--format", "csv")
    header, *rows = csv.reader(io.StringIO(out))
    assert (status, header) == (0, ["input_label", "id", "text", "label", "score"])
    assert [row[:3] for row in rows] == [["0.5", "2", "fox 2"], ["0.5", "1", "fox 1"]]
    assert err == "dendritic-bert: the texts are those of column review, the only one of strings\n"
    (tmp_path / "lines.csv").write_text('"te\nxt",id\nfox,1\n')
    _, _, err = run("classify", "--model", model_path, "--file", "lines.csv")
    assert err == "dendritic-bert: the texts are those of column te\\nxt, the only one of strings\n"
    status, _, err = run("classify", "--model", model_path, "--file", "part-1.csv")
    assert (status, err.count("\n")) == (1, 1)
    assert "pass delimiter=';' (--delimiter ';')" in err


@pytest.mark.parametrize("pattern", ["d/*", "d/?.csv*"])
def test_a_pattern_has_the_suffixes_of_its_files(run, model_path, tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "d" / name).write_text(f"id,review\n1,fox {name}\n")
    status, out, err = run("classify", "--model", model_path, "--file", pattern, "--column", "review")
    assert (status, err) == (0, "")
    assert [text for text, _, _ in from_json(out)] == ["fox a.csv", "fox b.csv"]


def test_tables_and_compressed_files(run, model_path, expected, tmp_path):
    table, packed = tmp_path / "in.parquet", tmp_path / "out.csv.gz"
    pd.DataFrame({"n": range(len(TEXTS)), "text": TEXTS}).to_parquet(table)
    assert run("classify", "--model", model_path, "--file", table, "--keep-columns", "all", "-o", packed)[0] == 0
    frame = pd.read_csv(packed, keep_default_na=False)
    assert frame["n"].tolist() == list(range(len(TEXTS)))
    assert list(zip(frame["text"], frame["label"], frame["score"])) == labelled(TEXTS, expected)
    status, out, _ = run("classify", "--model", model_path, "--file", packed)
    assert (status, from_json(out)) == (0, labelled(TEXTS, expected))
