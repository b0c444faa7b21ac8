"""All tables and pictures are made again, at a small size: from small files and a BERT of a few parameters."""

import csv
import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import reproduce as reproduce_module
from experiments import Experiment, run_experiments, summarise
from glue_files import write_task
from helpers import tiny_bert
from reproduce import NUM_DENDRITES, ReproduceOptions, main, mlp_size, reproduce
from result_files import read_csv
from transformers import BertModel

from dendritic_bert import DendriticLinear
from dendritic_bert.model.dendritic_linear import DendriticMLP
from dendritic_bert.training import TrainingOptions


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """GLUE's SST-2, MNLI and (dev alone) QNLI, SQuAD's dev set, and a BERT."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "glue").mkdir()
    write_task(folder / "glue", "sst2", {"train": 300, "dev": 40})
    write_task(folder / "glue", "mnli", {"train": 30, "dev_matched": 20, "dev_mismatched": 20})
    write_task(folder / "glue", "qnli", {"dev": 40})
    tiny_bert(BertModel, vocab_size=1200, num_hidden_layers=1, max_position_embeddings=400).save_pretrained(
        folder / "bert")
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "the", "word", "is", "what", "answer"]
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder / "bert")
    (folder / "squad").mkdir()
    (folder / "squad" / "dev-v1.1.json").write_text(json.dumps({"data": [{"title": f"t{number}", "paragraphs": [
        {"context": "the answer is good", "qas": [{"id": f"{number}", "question": "what is the answer", "answers": [
            {"text": "good", "answer_start": 14}]}]}]} for number in range(10)]}))
    return folder


@pytest.mark.slow(seconds=45)
def test_everything_small(inputs, tmp_path, capfd, monkeypatch):
    """The command line makes all files, and every cell of the table is what numpy makes of the rows. What two processes
    have trained for one part and one seed is not trained again; another run finds everything and writes the same bytes.
    """
    monkeypatch.setattr(reproduce_module, "NUM_AUGMENTED", 400)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    command = ["--data_dir", str(inputs / "glue"), "--squad_dir", str(inputs / "squad"), "--bert",
               str(inputs / "bert"), "--output", str(tmp_path / "out"), "--seeds", "2", "--fraction", "0.5",
               "--teacher", str(inputs / "bert"), "--work_dir", str(tmp_path / "work"), "--readme", str(readme)]
    trained = re.compile("^.*, seed [01]$", re.MULTILINE)
    assert main([*command, "--parts", "sst2", "--seeds", "1", "--jobs", "2"]) == 0
    assert len(trained.findall(capfd.readouterr().err)) == 11
    assert main(command) == 0
    out, err = capfd.readouterr()
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert sorted(files) == ["accuracy.png", "architecture.png", "distillation.csv", "distillation.md",
                             "error_reduction.png", "growth.png", "parameters.png", "sst2.csv", "sst2.md",
                             "tasks.csv", "tasks.md"]
    assert sorted(out.splitlines()) == sorted(str(tmp_path / "out" / name) for name in files)
    assert len(trained.findall(err)) == 2 * 4 - 1 + 11 + 2 * 12
    assert main(command) == 0
    assert "epoch" not in capfd.readouterr().err
    again = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {name: again[name] for name in files if name.endswith(("md", "csv"))} == {
        name: content for name, content in files.items() if name.endswith(("md", "csv"))}

    tasks, sst2 = (files[name].decode() for name in ("tasks.md", "sst2.md"))
    assert "this is a trial run, and its figures mean nothing" in tasks
    assert "accuracy matched" in tasks
    assert "accuracy mismatched" in tasks
    assert "exact match" in tasks
    assert "Not run, as the data were not available: cola, mrpc, stsb, qqp, rte, wnli." in tasks
    assert len(re.findall(r"^\| (?:BERT-tiny|DSN)", sst2, re.MULTILINE)) == 11
    distillation = files["distillation.md"].decode()
    assert re.search(r"dev accuracy of [\d.]+, [\d.]+ \(mean [\d.]+\), fine-tuned in \d+ s; the first of them teaches",
                     distillation)
    assert len(re.findall(r"^\| (?:labels alone|\+ .*) \| \S+ \| [\d.]+ ± [\d.]+ \|", distillation, re.MULTILINE)) == 12
    text = readme.read_text()
    assert text.startswith("before\n<!-- results -->\nDev accuracy on SST-2")
    assert text.endswith("<!-- /results -->\nafter\n")
    assert re.search(r"\| DSN by removal \| dendritic \| [\d.]+ ± [\d.]+ \|", text)

    rows = list(csv.DictReader(StringIO(files["sst2.csv"].decode())))
    for model in {row["model"] for row in rows}:
        for head in ("linear", "MLP", "dendritic", "grown")[:3 if model == "BERT-tiny" else 4]:
            group = [row for row in rows if (row["model"], row["head"]) == (model, head)]
            assert [row["seed"] for row in group] == ["0", "1"]
            scores = 100 * np.array([float(row["accuracy"]) for row in group])
            parts = [int(group[0][f"parameters_{part}"]) for part in ("all", "embeddings", "encoder", "head")]
            assert parts[0] == sum(parts[1:])
            cells = [model, head, f"{scores.mean():.1f} ± {scores.std(ddof=1):.1f}", *(f"{part:,}" for part in parts)]
            assert f"| {' | '.join(cells)} |" in sst2


@pytest.mark.parametrize("hidden_size", [16, 128, 384])
@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_heads_of_equal_size(hidden_size, num_labels):
    dendritic = DendriticLinear(hidden_size, num_labels, NUM_DENDRITES).num_live_parameters()
    layers = [module for module in DendriticMLP(hidden_size, mlp_size(hidden_size, num_labels), num_labels).modules()
              if isinstance(module, DendriticLinear)]
    unit = hidden_size + 1 + num_labels
    assert abs(sum(layer.num_live_parameters() for layer in layers) - dendritic) <= unit / 2


# ---- series of trainings ---------------------------------------------------------------------------------------------


def test_a_series_goes_on_where_it_ended(tmp_path, monkeypatch):
    """After an error in the fourth training; a training with other settings is not taken for an earlier one."""
    trained = []

    def run(options):
        trained.append((options.lr, options.seeds[0]))
        if len(trained) == 4:
            raise RuntimeError("loss is nan")
        Path(options.output_dir).mkdir(parents=True)
        return {"runs": [{"seed": options.seeds[0], "accuracy": options.lr + 0.1 * options.seeds[0], "seconds": 1}],
                "metric": "accuracy", "majority": None, "num_train": 7, "num_dev": 3, "live_parameters": {"all": 5}}

    series = [Experiment({"model": name}, TrainingOptions(dsn=True, lr=lr), run)
              for name, lr in (("a", 0.5), ("b", 0.7))]
    with pytest.raises(RuntimeError, match="loss is nan"):
        run_experiments(series, [0, 1], tmp_path / "rows.csv")
    rows = run_experiments(series, [0, 1], tmp_path / "rows.csv")
    assert trained == [(0.5, 0), (0.5, 1), (0.7, 0), (0.7, 1), (0.7, 1)]
    summaries = summarise(rows, ["model"])
    assert [(summary.columns["model"], summary.mean, summary.num_seeds) for summary in summaries] == [
        ("a", pytest.approx(0.55), 2), ("b", pytest.approx(0.75), 2)]
    assert summaries[0].sd == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert summaries[0].percent() == "55.0 ± 7.1"
    changed = [series[0]._replace(options=TrainingOptions(dsn=True, lr=0.2))]
    assert [row["accuracy"] for row in run_experiments(changed, [0], tmp_path / "rows.csv")] == ["0.2"]
    assert len(read_csv(tmp_path / "rows.csv")) == 4


@pytest.mark.parametrize(("changes", "message"), [
    ({"parts": ["sst3"]}, "parts is sst3, expected some of tasks, sst2, distillation, windows."),
    ({"parts": ["distillation"]}, "teacher is not given, which the part distillation needs: name an encoder."),
    ({"parts": ["windows"]}, "text_dir is not given, which the part windows needs: name a folder."),
    ({"seeds": 0}, "seeds is 0, expected 1 or more."),
    ({"jobs": 0}, "jobs is 0, expected 1 or more."),
    ({"fraction": 0.0}, "fraction is 0.0, expected more than 0 and at most 1."),
])
def test_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ReproduceOptions(**{"data_dir": "glue", "bert": "bert"} | changes)


def test_errors_are_one_line(inputs, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--data_dir", "glue", "--bert", "bert", "--seeds", "0"])
    assert end.value.code == 2
    assert re.fullmatch(r".*: error: seeds is 0, expected 1 or more \(see .* --help\)\n", capsys.readouterr().err)
    (tmp_path / "file").write_text("")
    assert main(["--data_dir", "glue", "--bert", "bert", "--output", str(tmp_path / "file" / "out")]) == 1
    assert re.fullmatch(r".*: error: output .*/file/out cannot be written \(Not a directory\): name a folder .*\n",
                        capsys.readouterr().err)


def test_a_readme_without_the_marks(inputs, tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"README\.md has no <!-- results --> followed by <!-- /results -->: put them"):
        reproduce(ReproduceOptions(data_dir=str(inputs / "glue"), bert=str(inputs / "bert"), parts=["sst2"], seeds=1,
                                   output=str(tmp_path / "out"), fraction=0.1, readme=str(tmp_path / "README.md")))
