"""The command of the runtime: its texts, its output, and what it ends with."""

import gzip
import io
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from runtime_models import trained_on

from dendritic_bert import TextClassifier


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
