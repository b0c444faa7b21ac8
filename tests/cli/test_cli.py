"""The command line, most of it in this process; what needs a process of its own (pipes, signals) has one."""

import csv
import dataclasses
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from importlib import metadata

import huggingface_hub
import pytest
import torch
from helpers import REPOSITORY, change_backend, tiny_bert
from small_classifier import MAX_LENGTH, hugging_face_tokenizer, small_model
from transformers import AutoConfig, pipeline

import dendritic_bert
from dendritic_bert import cli
from dendritic_bert.cli import demo, environment
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.kernels import backends
from dendritic_bert.training.trainer import TrainingOptions

TEXTS = ["the quick brown fox", "Unflinchingly bleak!", 'a "charming", journey', ""]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    small_model(id2label={0: "negative", 1: "positive"}).save_pretrained(path)
    hugging_face_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def expected(model_path):
    """Label and score of every text, as transformers sees them."""
    results = pipeline("text-classification", model=model_path, device="cpu")(TEXTS)
    return [(result["label"], pytest.approx(result["score"], abs=2e-6)) for result in results]


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """Run a command line here: (status, standard output, standard error)."""

    def run_here(*argv: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = cli.main([str(arg) for arg in argv])
        out, err = capsysbinary.readouterr()
        return status, out.decode(), err.decode()

    return run_here


def start(*argv: object, **environment: str) -> subprocess.Popen:
    """In a job that a shell runs in the background interrupts are ignored, and so they would be here."""
    return subprocess.Popen([sys.executable, "-m", "dendritic_bert", *map(str, argv)], cwd=REPOSITORY,
                            env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def run_apart(*argv: object, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    process = start(*argv, **environment)
    out, err = process.communicate(stdin, timeout=120)
    return process.returncode, out.decode(), err.decode()


def from_json(out: str) -> list[tuple[str, str, float]]:
    return [(record["text"], record["label"], record["score"]) for record in map(json.loads, out.splitlines())]


def labelled(texts, expected):
    return [(text, *result) for text, result in zip(texts, expected)]


# ---- classify --------------------------------------------------------------------------------------------------------


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
    assert err == ("dendritic-bert: hint: reviews.csv is classified as a text, to classify what is in that file pass "
                   "--file reviews.csv\n")
    assert run("classify", "--model", model_path, "reviews.csv", "b")[2] == ""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the redirections are those of bash")
def test_streams_that_are_closed_and_paths_that_are_pipes(model_path, tmp_path):
    """Each line is a shell's; the files it makes say what went where."""
    (tmp_path / "in.txt").write_text("good film\nbad film\n")
    script = """
    export LC_ALL=C.UTF-8
    c() { "$1" -m dendritic_bert classify --model "$2" "${@:3}"; }
    c "$@" --file in.txt -o closed.json >&- 2> report || exit 1
    c "$@" --file in.txt -o silent.json 2>&- > nothing || exit 2
    c "$@" --file <(cat in.txt) -o >(cat > substituted.json) <&- || exit 3
    wait $!
    """
    done = subprocess.run(["bash", "-c", script, "bash", sys.executable, model_path], cwd=tmp_path, timeout=240,
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stderr
    expected = (tmp_path / "closed.json").read_text()
    assert [text for text, _, _ in from_json(expected)] == ["good film", "bad film"]
    for name in ("silent", "substituted"):
        assert (tmp_path / f"{name}.json").read_text() == expected, name
    assert (tmp_path / "nothing").read_text() == ""
    assert (tmp_path / "report").read_text() == "dendritic-bert: texts classified into closed.json: 2\n"


def test_standard_streams_that_are_closed(model_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["classify", "--model", model_path]) == 2
    assert "nothing to classify: pass TEXT" in capsys.readouterr().err
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


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "message"), [
    ([], "the following arguments are required: COMMAND"),
    (["clasify"], "invalid choice: 'clasify'"),
    (["classify", "--frmat", "csv"], "unrecognized arguments: --frmat"),
    (["classify", "--form", "csv"], "unrecognized arguments: --form"),
    (["classify", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    (["classify", "--batch-size", "0"], "argument --batch-size: '0' is not a whole number of at least 1"),
    (["classify", "--threads", "two"], "argument --threads: 'two' is not a whole number of at least 1"),
    (["classify", "text", "--file", "in.txt"], "TEXT and --file are both given"),
    (["classify", "text", "--column", "review"], "--input-format and --column describe a file, but TEXT is given"),
    (["classify", "--column", "review"], "--column is review, but the input is read as lines of text: pass --input-f"),
    (["classify", "--file", "in.txt", "--column", "review"], "--column is review, but the input is read as lines of"),
    (["convert", "bert"], "the following arguments are required: OUT"),
])
def test_a_wrong_command_line(run, argv, message):
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("dendritic-bert")
    assert err.endswith("--help)\n")
    assert err.count("\n") == 1


def test_nothing_to_classify_at_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert cli.main(["classify"]) == 2
    assert "nothing to classify: pass TEXT, --file F or texts on standard input" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--file", "missing.txt"], "input missing.txt does not exist."),
    (["--file", "in.csv"], "column is 'text', which in.csv does not have: the columns are id, review."),
    (["--file", "in.csv", "--input-format", "jsonl"], "in.csv, line 1: not valid JSON"),
    (["--output", "missing/out.csv"], "missing/out.csv cannot be written"),
    (["--output", "."], "output . is a directory, name a file."),
    (["--model", "./missing"], "model ./missing does not exist: pass a folder or a hub id."),
    (["--model", "."], "model . cannot be loaded"),
])
def test_errors_take_one_line(run, model_path, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id,review\n1,a\n")
    status, out, err = run("classify", "--model", model_path, *options, stdin=b"a\n")
    assert (status, out) == (1, "")
    assert err.startswith("dendritic-bert: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_an_output_without_room(run, model_path):
    status, out, err = run("classify", "--model", model_path, "--output", "/dev/full", stdin=b"a\n")
    assert (status, out) == (1, "")
    assert err == ("dendritic-bert: error: output /dev/full cannot be written (No space left on device): make room for "
                   "it.\n")


@pytest.mark.parametrize(("field", "value", "message"), [
    ("num_dendrites", 3, r"classifier.bias of shape [6], its configuration asks for [8]"),
    ("hidden_size", 32, r"bert.embeddings.LayerNorm.bias of shape [16], its configuration asks for [32]"),
])
def test_a_configuration_that_does_not_fit_the_weights(run, model_path, tmp_path, field, value, message):
    shutil.copytree(model_path, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {field: value}))
    status, out, err = run("classify", "--model", tmp_path / "model", "a text")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"{message}: pass the configuration it was saved with." in err


@pytest.mark.parametrize("argv", [
    ["--debug", "classify", "--file", "missing.txt"], ["classify", "--debug", "--file", "missing.txt"]])
def test_debug_shows_the_traceback(run, model_path, argv):
    status, out, err = run(*argv, "--model", model_path)
    assert (status, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.endswith("\ndendritic-bert: error: input missing.txt does not exist.\n")


def test_a_model_that_is_not_on_the_hub(run, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    status, out, err = run("classify", "--model", "no-such/model", "a text")
    assert (status, out) == (1, "")
    first, second = err.splitlines()
    assert first == "dendritic-bert: there is no folder no-such/model, asking the Hugging Face hub"
    assert second.startswith("dendritic-bert: error: model no-such/model cannot be loaded (")
    assert second.endswith("): pass a folder or a hub id.")


NO_BACKEND = "DENDRITIC_BERT_BACKEND is 'quantum', which cannot be used: there is no such backend"


def test_a_forced_backend_that_is_not_there(model_path):
    status, out, err = run_apart("classify", "--model", model_path, stdin=b"a\n", DENDRITIC_BERT_BACKEND="quantum")
    assert (status, out) == (1, "")
    assert err.startswith(f"dendritic-bert: error: {NO_BACKEND}")
    assert err.count("\n") == 1


def test_env_runs_where_the_forced_backend_is_not_there(run, monkeypatch):
    monkeypatch.setenv("DENDRITIC_BERT_BACKEND", "quantum")
    monkeypatch.delitem(sys.modules, "dendritic_bert.kernels.backends")  # which reads the variable once, when imported
    monkeypatch.delattr(dendritic_bert.kernels, "backends")
    status, out, err = run("env")
    assert (status, err) == (0, "")
    assert environment_of(out)["backend"].startswith(f"none: {NO_BACKEND}")


def test_what_goes_wrong_unforeseen_and_warnings(run, monkeypatch):
    def describe():
        warnings.warn("take care", stacklevel=1)
        raise KeyError("key")

    monkeypatch.setattr(environment, "describe", describe)
    status, out, err = run("env")
    assert (status, out) == (1, "")
    assert err == "dendritic-bert: warning: take care\ndendritic-bert: error: KeyError: 'key'\n"


# ---- the other commands ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A folder with an SST-2 that a few epochs can learn."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "SST-2").mkdir()
    for split, rows in (("train", 400), ("dev", 20)):
        lines = [f"{('bleak', 'charming')[i % 2]} journey {i}\t{i % 2}" for i in range(rows)]
        (folder / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def test_train_evaluate_classify(run, glue, tmp_path):
    """Flags in both spellings; results alone on standard output; what was trained is what is scored and classifies."""
    output = tmp_path / "model"
    status, out, err = run("train", "--dsn", "--data_dir", glue, "--output_dir", output, "--task", "sst2",
                           "--epochs", 2, "--batch-size", 8, "--lr", 0.02, "--hidden_size", 8)
    assert status == 0, err
    results = json.loads(out)
    assert "epoch 2 of 2" in err
    assert (results["num_train"], results["num_dev"], len(results["runs"])) == (400, 20, 1)
    assert AutoConfig.from_pretrained(output).hidden_size == 8
    status, out, _ = run("evaluate", "--model", output, "--data_dir", glue)
    assert status == 0
    assert json.loads(out)["accuracy"] == results["runs"][0]["accuracy"] == 1
    status, out, _ = run("classify", "--model", output, "a charming journey", "bleak")
    assert [label for _, label, _ in from_json(out)] == ["positive", "negative"]


def test_results_are_valid_json(run, monkeypatch):
    """Where a score has no value, as the correlation with a constant has none: null, for JSON has no NaN."""
    monkeypatch.setattr("dendritic_bert.training.trainer.evaluate", lambda *_: {
        "pearson": float("nan"), "scores": [float("inf"), {"accuracy": 0.5}], "num_examples": 3})
    status, out, _ = run("evaluate")
    assert status == 0
    assert json.loads(out, parse_constant=pytest.fail) == {
        "pearson": None, "scores": [None, {"accuracy": 0.5}], "num_examples": 3}


def test_train_has_a_flag_for_every_option(run):
    status, out, err = run("train", "--help")
    assert (status, err) == (0, "")
    for field in dataclasses.fields(TrainingOptions):
        assert f" --{field.name} " in out
        assert field.metadata["help"].split()[0] in out


@pytest.mark.parametrize(("command", "message"), [
    (["train"], "dsn is False and model_name is not given"),
    (["train", "--dsn", "--epochs", "0"], "epochs is 0, expected more than 0"),
    (["train", "--dsn", "--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
    (["train", "--dsn", "--task", "sst3"], "task is 'sst3', expected one of sst2"),
])
def test_train_with_wrong_flags(run, command, message):
    status, out, err = run(*command)
    assert (status, out) == (2, "")
    assert err.startswith(f"dendritic-bert train: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [["train", "--dsn"], ["evaluate"]])
def test_data_that_is_not_there(run, tmp_path, monkeypatch, model_path, command):
    monkeypatch.setattr(dendritic_bert, "EMBEDDED_MODEL", model_path)
    status, out, err = run(*command, "--data_dir", tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"dendritic-bert: error: data_dir {tmp_path} holds no SST-2/")
    assert err.count("\n") == 1


def test_convert(run, tmp_path, expected):
    tiny_bert(vocab_size=600).save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    command = ("convert", tmp_path / "bert", tmp_path / "dsn", "--num-labels", "3", "--num-dendrites", "2",
               "--pooling", "mean_all")
    status, out, err = run(*command)
    assert (status, out) == (0, "")
    assert err.endswith(" parameters\n")
    config = AutoConfig.from_pretrained(tmp_path / "dsn")
    assert (config.model_type, config.num_labels, config.num_dendrites, config.pooling) == (
        "dendritic_bert", 3, 2, "mean_all")
    assert run("classify", "--model", tmp_path / "dsn", "a text")[0] == 0
    status, _, err = run(*command)
    assert status == 1
    assert "holds something already" in err


def environment_of(out: str) -> dict[str, str]:
    """The names and values of what `env` prints."""
    width = out.index(dendritic_bert.__version__)
    return {line[:width].strip(): line[width:] for line in out.splitlines()}


def test_env(run, monkeypatch, model_path):
    monkeypatch.setattr(dendritic_bert, "EMBEDDED_MODEL", model_path)
    status, out, err = run("env")
    found = environment_of(out)
    assert (status, err) == (0, "")
    assert torch.__version__.startswith(found["torch"])
    assert found["python"].startswith(sys.version.split()[0])
    assert found["threads"].startswith(str(torch.get_num_threads()))
    assert found["backend reference"] == "available"
    assert found["backend in use"].startswith(backends.choose(None, "dsn_logits", "cpu", torch.float32))
    assert found["tokenizer"].startswith(TextClassifier.from_pretrained().tokenizer.engine)
    assert found["embedded model"].endswith(model_path)


def test_env_says_what_is_missing_and_how_to_get_it(run, monkeypatch, tmp_path):
    def version(package):
        if package == "nanotoken":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    change_backend(monkeypatch, "cpu", missing="no compiler, install one")
    monkeypatch.setattr(dendritic_bert, "EMBEDDED_MODEL", str(tmp_path))
    status, out, _ = run("env")
    found = environment_of(out)
    assert status == 0
    assert found["nanotoken"] == "not installed (pip install 'dendritic-bert[fast]')"
    assert found["backend cpu"] == "not available: no compiler, install one"
    assert found["backend in use"].startswith("reference")
    assert found["embedded model"].startswith(f"not there: {tmp_path} lacks model.safetensors and tokenizer.json")


def test_demo(run, monkeypatch, model_path):
    monkeypatch.setattr(dendritic_bert, "EMBEDDED_MODEL", model_path)
    monkeypatch.setattr(demo, "ROWS", 8)
    monkeypatch.setattr(demo, "REPEATS", 1)
    threads = torch.get_num_threads()
    status, out, err = run("demo")
    assert (status, err, torch.get_num_threads()) == (0, "", threads)
    results = pipeline("text-classification", model=model_path, device="cpu")(
        list(demo.SENTENCES), truncation=True, max_length=MAX_LENGTH)
    lines = out.splitlines()
    for line, sentence, result in zip(lines, demo.SENTENCES, results):
        assert line.split(None, 2) == [result["label"], f"{result['score']:.3f}", sentence]
    assert 0 <= float(lines[-1].rpartition(" ")[2]) < 1e-4


@pytest.mark.parametrize("argv", [["--help"], ["classify", "--help"], ["convert", "--help"], ["env", "--help"],
                                  ["--version"]])
def test_help_needs_neither_torch_nor_transformers(argv):
    """They take seconds to import. The package beneath is a bare one here: its own __init__ imports transformers."""
    code = f"""
import sys, types
package = types.ModuleType("dendritic_bert")
package.__path__, package.__version__ = [{str(REPOSITORY / "dendritic_bert")!r}], "0"
sys.modules["dendritic_bert"] = package
from dendritic_bert.cli import main
status = main({argv!r})
assert "dendritic_bert.cli" in sys.modules
assert not {{"torch", "transformers", "numpy"}} & set(sys.modules), "heavy imports"
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dendritic-bert" in done.stdout


def test_without_a_command(capsys, monkeypatch):
    """`python -m dendritic_bert` prints the environment; the program itself asks for a command."""
    monkeypatch.setattr(sys, "argv", ["dendritic_bert"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("dendritic_bert", run_name="__main__")
    assert end.value.code == 0
    assert environment_of(capsys.readouterr().out)["dendritic-bert"].startswith(dendritic_bert.__version__)
