"""Training through the Trainer: it learns, a seed decides everything, and what is written is what was scored."""

import errno
import itertools
import json
import os
import re
import shlex
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import shared_path, tiny_bert
from safetensors.torch import load_file
from small_classifier import hugging_face_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel, HfArgumentParser, Trainer

from dendritic_bert import EMBEDDED_MODEL
from dendritic_bert.datasets.glue import Glue
from dendritic_bert.datasets.rows import RowDataset
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.training import TrainingOptions, evaluate, train

POSITIVE, NEGATIVE = ["charming", "wonderful", "gripping", "warm"], ["bleak", "dull", "tedious", "clumsy"]
NOUNS = ["film", "plot", "cast", "journey", "story", "score", "ending", "dialogue"]
FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A task that a bag of words can learn, in the layout of GLUE: nine tenths of it true to its words."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "SST-2").mkdir()
    (folder / "STS-B").mkdir()
    rng = np.random.default_rng(0)
    for split, size in (("train", 600), ("dev", 120)):
        labels = rng.integers(0, 2, size)
        noise = rng.random(size) < 0.1
        words = [rng.choice([NEGATIVE, POSITIVE][label ^ flip]) for label, flip in zip(labels, noise)]
        texts = [f"the {rng.choice(NOUNS)} is {word} , said {rng.choice(NOUNS)}" for word in words]
        rows = "".join(f"{text}\t{label}\n" for text, label in zip(texts, labels))
        (folder / "SST-2" / f"{split}.tsv").write_text(f"sentence\tlabel\n{rows}")
        pairs = "".join(f"{text}\tthe {rng.choice(NOUNS)}\t{1 + 3 * label}\n" for text, label in zip(texts, labels))
        (folder / "STS-B" / f"{split}.tsv").write_text(f"sentence1\tsentence2\tscore\n{pairs}")
    return str(folder)


@pytest.fixture
def options(glue, tmp_path):
    """Options of a run of a second; keyword arguments override them."""
    def make(**changes) -> TrainingOptions:
        defaults = {"dsn": True, "data_dir": glue, "output_dir": str(tmp_path / "out"), "lr": 0.02, "batch_size": 60}
        return TrainingOptions(**defaults | changes)

    return make


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- it learns -------------------------------------------------------------------------------------------------------


def test_a_slice_of_sst2_is_learnt(tmp_path):
    """6,000 real phrases: 3 standard errors (5 points) above the most frequent label, and so above chance, on dev."""
    source = shared_path("data/glue/SST-2")
    (tmp_path / "SST-2").mkdir()
    with open(source / "train.tsv", encoding="utf-8") as lines:
        (tmp_path / "SST-2" / "train.tsv").write_text("".join(itertools.islice(lines, 6001)), encoding="utf-8")
    (tmp_path / "SST-2" / "dev.tsv").write_bytes((source / "dev.tsv").read_bytes())
    results = train(TrainingOptions(dsn=True, data_dir=str(tmp_path), output_dir=str(tmp_path / "out"), lr=0.01))
    assert (results["num_train"], results["num_dev"]) == (6000, 872)
    assert results["majority"] == pytest.approx(444 / 872)
    assert results["mean"] > 444 / 872 + 0.05


@pytest.mark.parametrize("num_dendrites", [0, 2])
def test_what_is_scored_is_what_is_written(options, glue, capsys, num_dendrites):
    """90 % can be learnt here, 8 standard errors above chance; the files alone give the same score."""
    results = train(options(num_dendrites=num_dendrites, save_dtype="float16", epochs=8, batch_size=30))
    run = results["runs"][0]
    assert 0.8 < run["accuracy"] < 0.97
    assert run["standard_error"] == pytest.approx((run["accuracy"] * (1 - run["accuracy"]) / 120) ** 0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(re.findall(r"seed 0, epoch \d of 8: loss \d\.\d+, dev accuracy \d\.\d+", err)) == 8

    scores = evaluate(results["output_dir"], "sst2", glue)
    assert (scores["accuracy"], scores["num_examples"]) == (run["accuracy"], 120)
    assert sorted(os.listdir(results["output_dir"])) == FILES
    assert {tensor.dtype for tensor in weights(results["output_dir"]).values()} == {torch.float16}
    classifier = TextClassifier.from_pretrained(results["output_dir"])
    assert [found["label"] for found in classifier(["a wonderful film", "a tedious film"])] == ["positive", "negative"]


def test_a_regression_of_pairs(options, glue):
    results = train(options(task="stsb", epochs=6))
    assert results["mean"] == results["runs"][0]["pearson"] > 0.5
    assert results["majority"] is None
    assert evaluate(results["output_dir"], "stsb", glue)["pearson"] == pytest.approx(results["mean"])


def test_matrix_products_in_bfloat16(options, tmp_path):
    """Another rounding, so other weights; the parameters themselves stay float32, and learn."""
    settings = {"epochs": 8, "batch_size": 30}
    results = train(options(**settings, bf16=True))
    assert results["mean"] > 0.8
    train(options(**settings, output_dir=str(tmp_path / "exact")))
    found, exact = weights(tmp_path / "out"), weights(tmp_path / "exact")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert not same(found, exact)


def test_words_are_dropped_in_training_alone(options, monkeypatch):
    """Of the sentences; [CLS] and [SEP] stay, and the dev set is whole."""
    found = []

    def look(trainer, **_):
        found.extend([np.concatenate([rows[i]["attention_mask"] for i in range(100)])
                      for rows in (trainer.train_dataset, trainer.eval_dataset)])
        ids = np.concatenate([trainer.train_dataset[i]["input_ids"] for i in range(100)])
        found.append(found[0][(ids == 2) | (ids == 3)])
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", look)
    with pytest.raises(KeyboardInterrupt):
        train(options(word_dropout=0.9))
    train_mask, dev_mask, special_mask = found
    assert train_mask.mean() < 0.4
    assert dev_mask.all()
    assert len(special_mask) == 200
    assert special_mask.all()


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls(options, monkeypatch):
    """Ten steps an epoch, of which the first half of all: transformers' own schedule."""
    from transformers import get_linear_schedule_with_warmup

    from dendritic_bert.training import trainer as training

    rates = []
    monkeypatch.setattr(training, "LOGGING_STEPS", 1)
    monkeypatch.setattr(training._Progress, "on_log",
                        lambda self, args, state, control, logs, **_: rates.append(logs.get("learning_rate")))
    train(options(epochs=2, warmup=0.5))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.02)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 20)
    expected = []
    for _ in range(20):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [rate for rate in rates if rate is not None] == pytest.approx(expected)


@pytest.mark.parametrize("dsn", [True, False])
def test_word_embeddings_are_left_as_they_are(options, tmp_path, dsn):
    tiny_bert(BertModel, vocab_size=600, max_position_embeddings=128).save_pretrained(tmp_path / "bert")
    hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
    train(options(model_name=str(tmp_path / "bert"), dsn=dsn, freeze_word_embeddings=True, epochs=1))
    before, after = weights(tmp_path / "bert"), weights(tmp_path / "out")
    for name in ("word_embeddings", "position_embeddings"):
        kept = torch.equal(after[f"bert.embeddings.{name}.weight"], before[f"embeddings.{name}.weight"])
        assert kept == (name == "word_embeddings")


def test_the_average_of_the_weights_is_kept(options, tmp_path):
    """After one step it is that step's weights, after more it lags behind the last."""
    for epochs, batch_size, is_last in ((1, 600, True), (2, 60, False)):
        for ema in (0.0, 0.9):
            train(options(epochs=epochs, batch_size=batch_size, ema=ema, output_dir=str(tmp_path / str(ema))))
        assert same(weights(tmp_path / "0.0"), weights(tmp_path / "0.9")) == is_last


def test_a_seed_decides_everything(options, tmp_path):
    folders = [str(tmp_path / name) for name in "abc"]
    for folder, seed in zip(folders, (3, 3, 4)):
        torch.rand(seed + len(folder))  # whatever ran before must not count
        train(options(seeds=[seed], output_dir=folder, hidden_dropout_prob=0.1))
    first, again, other = map(weights, folders)
    assert same(first, again)
    assert not same(first, other)
    vocabularies = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in folders]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_several_seeds_are_reported_and_the_first_is_kept(options, tmp_path):
    alone = train(options(seeds=[5], output_dir=str(tmp_path / "alone"), epochs=1))
    results = train(options(seeds=[5, 1, 2], epochs=1))
    assert [run["seed"] for run in results["runs"]] == [5, 1, 2]
    assert results["runs"][0]["accuracy"] == alone["mean"]
    assert same(weights(results["output_dir"]), weights(alone["output_dir"]))
    accuracies = [run["accuracy"] for run in results["runs"]]
    assert results["mean"] == pytest.approx(statistics.mean(accuracies))
    assert results["sd"] == pytest.approx(statistics.stdev(accuracies))
    assert len(set(accuracies)) > 1
    assert alone["sd"] is None


# ---- the beginnings --------------------------------------------------------------------------------------------------


def test_a_new_vocabulary(options):
    results = train(options(vocab_size=300, hidden_size=8, max_position_embeddings=64, max_length=32, epochs=1))
    tokenizer = AutoTokenizer.from_pretrained(results["output_dir"])
    assert 200 < len(tokenizer) <= 300
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.model_max_length) == (0, 2, 64)
    assert tokenizer.tokenize("The FILM is charming") == ["the", "film", "is", "charming"]
    assert tokenizer.unk_token_id not in tokenizer("Zq@9 \"#~^\"").input_ids  # ASCII that no training text holds
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer)
    shapes = {name: list(tensor.shape) for name, tensor in weights(results["output_dir"]).items()}
    assert shapes["bert.embeddings.word_embeddings.weight"] == [len(tokenizer), 8]
    assert shapes["bert.embeddings.position_embeddings.weight"] == [64, 8]
    assert results["live_parameters"] == {
        "embeddings": (len(tokenizer) + 64 + 2 + 2) * 8, "encoder": 0, "head": 2 * 9,
        "all": sum(int(np.prod(shape)) for shape in shapes.values())}


def test_a_tokenizer_under_random_numbers(options, tmp_path):
    tokenizer = hugging_face_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    results = train(options(tokenizer_name=str(tmp_path / "tokenizer"), epochs=1, fraction=0.1, head_hidden=5))
    assert results["num_train"] == 60
    assert AutoTokenizer.from_pretrained(results["output_dir"]).get_vocab() == tokenizer.get_vocab()
    assert len(weights(results["output_dir"])["bert.embeddings.word_embeddings.weight"]) == len(tokenizer)
    assert results["live_parameters"]["head"] == 5 * 17 + 2 * 6


def test_a_vocabulary_that_is_too_small(options):
    with pytest.raises(ValueError, match=r"^vocab_size is 100, the characters of the texts alone take \d+: raise it"):
        train(options(vocab_size=100))


@pytest.mark.parametrize("dsn", [True, False])
def test_a_bert_checkpoint(options, tmp_path, dsn, monkeypatch):
    """The embeddings begin as BERT's (a rate of 1e-9 leaves them there), the encoder stays if asked for."""
    bert = tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40, num_hidden_layers=1)
    bert.save_pretrained(tmp_path / "bert")
    tokenizer = hugging_face_tokenizer()
    tokenizer.save_pretrained(tmp_path / "bert")
    judged, scores = [], Glue.scores
    monkeypatch.setattr(Glue, "scores", lambda self, *args: judged.append(args[0]) or scores(self, *args))
    results = train(options(model_name=str(tmp_path / "bert"), dsn=dsn, lr=1e-9, epochs=1, max_length=40))
    # The epoch is scored as the end is, in the order of the rows, whatever order training takes them in.
    np.testing.assert_allclose(judged[0], np.stack(judged[1]), atol=1e-4)
    assert np.ptp(judged[0], axis=0).min() > 0.01
    model = AutoModelForSequenceClassification.from_pretrained(results["output_dir"])
    assert model.config.dsn is dsn
    assert model.config.id2label == {0: "negative", 1: "positive"}
    theirs = bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(model.bert.embeddings.word_embeddings.weight, theirs, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(results["output_dir"]).get_vocab() == tokenizer.get_vocab()
    encoder = 0 if dsn else sum(p.numel() for part in (bert.encoder, bert.pooler) for p in part.parameters())
    assert results["live_parameters"]["encoder"] == encoder


# ---- what is written -------------------------------------------------------------------------------------------------


def test_the_model_card_tells_how(options):
    """Its command gives the same options again; its figures are the results'."""
    asked = options(seeds=[2, 7], epochs=1, num_dendrites=1, hidden_size=8, output_dir=options().output_dir + " 2")
    results = train(asked)
    with open(f"{asked.output_dir}/README.md", encoding="utf-8") as file:
        card = file.read()
    command = shlex.split(re.search(r"```\n(dendritic-bert train .*)\n```", card)[1])
    assert HfArgumentParser(TrainingOptions).parse_args_into_dataclasses(command[2:]) == (asked,)
    assert f"**{results['live_parameters']['all']:,}**" in card
    for run in results["runs"]:
        assert f"| {run['seed']} | {run['accuracy']:.4f} |" in card
    assert f"**{results['mean']:.4f}**, standard deviation {results['sd']:.4f}" in card
    assert f"value: {results['runs'][0]['accuracy']}" in card
    assert json.loads(json.dumps(results)) == results


def test_an_output_folder_that_cannot_be_written(options, tmp_path, monkeypatch):
    """Known before anything is trained, and nothing is left behind."""
    monkeypatch.setattr(Trainer, "train", lambda self, **_: pytest.fail("trained all the same"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^output_dir .*/file/out cannot be written \(Not a directory\): name a folder"):
        train(options(output_dir=str(tmp_path / "file" / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("is_new", [True, False])
def test_an_interrupted_run_leaves_no_trace(options, tmp_path, monkeypatch, is_new):
    output = tmp_path / "out"
    if not is_new:
        train(options(epochs=1))
        (output / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in output.iterdir()} if output.exists() else None

    monkeypatch.setattr(Trainer, "train", lambda self, **_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        train(options(seeds=[1]))
    after = {path.name: path.read_bytes() for path in output.iterdir()} if output.exists() else None
    assert after == before


@pytest.fixture
def stop(monkeypatch):
    """``stop(seed, epoch, how)``: call ``how`` when that epoch of that seed begins."""
    def install(seed: int, epoch: int, how):
        whole = RowDataset.set_epoch

        def set_epoch(dataset, number):
            if dataset.word_dropout and (dataset.seed, number) == (seed, epoch):
                how()
            whole(dataset, number)

        monkeypatch.setattr(RowDataset, "set_epoch", set_epoch)
        return lambda: monkeypatch.setattr(RowDataset, "set_epoch", whole)

    return install


def interrupt():
    raise KeyboardInterrupt


def scores_alone(results) -> list[dict]:
    return [{name: value for name, value in run.items() if name != "seconds"} for run in results["runs"]]


@pytest.mark.parametrize("is_bert", [True, False])
def test_an_interrupted_training_goes_on_to_the_same_result(options, tmp_path, stop, is_bert):
    """In the third epoch of the second seed: the first is not trained again, the second goes on."""
    settings = {"seeds": [0, 1], "hidden_dropout_prob": 0.1, "num_dendrites": 2, "save_dtype": "float16"}
    if is_bert:
        tiny_bert(BertModel, vocab_size=600, max_position_embeddings=40).save_pretrained(tmp_path / "bert")
        hugging_face_tokenizer().save_pretrained(tmp_path / "bert")
        settings |= {"model_name": str(tmp_path / "bert"), "dsn": False, "max_length": 40, "lr": 1e-3}
    whole = train(options(**settings, output_dir=str(tmp_path / "whole")))
    unstop = stop(1, 2, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^\(the same command goes on where this one ended\)$"):
        train(options(**settings))
    unstop()
    assert sorted(os.listdir(tmp_path / "out")) == [".unfinished"]
    stop(0, 0, lambda: pytest.fail("the first seed is trained again"))
    stop(1, 1, lambda: pytest.fail("the second seed begins anew"))
    resumed = train(options(**settings))
    assert scores_alone(resumed) == scores_alone(whole)
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    assert sorted(os.listdir(tmp_path / "out")) == FILES


def test_another_command_starts_over(options, stop):
    unstop = stop(0, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(options())
    unstop()
    results = train(options(lr=0.01))
    assert scores_alone(results) == scores_alone(train(options(lr=0.01, output_dir=options().output_dir + " 2")))


def test_a_training_in_use(options, stop):
    def second():
        with pytest.raises(BlockingIOError, match=r"^output_dir .*out is in use by another training: wait for it or"):
            train(options())

    stop(0, 1, second)
    assert len(train(options())["runs"]) == 1


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", ".unfinished/notes.txt"])
def test_files_of_others_are_left_alone(options, tmp_path, name):
    """Found out before the training: a project's own README.md, a model of another make, a folder of that name."""
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"model_type": "bert"}')
    with pytest.raises(FileExistsError, match=r"(holds .* but no model|is not a folder) of this program"):
        train(options())
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == [path]
    assert path.read_text() == '{"model_type": "bert"}'


def test_beside_other_files(options, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for _ in range(2):  # a model of this program is replaced
        train(options())
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*FILES, "notes.txt"])
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_move_that_was_interrupted(options, tmp_path, monkeypatch):
    """Some files have moved up, the configuration has not: the same command trains again and is not refused."""
    whole = train(options(output_dir=str(tmp_path / "whole")))
    replace = os.replace

    def replace_some(source, target):
        if Path(source).name == "config.json" and Path(target).parent.name == "out":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_some)
        with pytest.raises(KeyboardInterrupt):
            train(options())
    assert scores_alone(train(options())) == scores_alone(whole)
    assert sorted(os.listdir(tmp_path / "out")) == FILES


def test_a_file_system_without_locks(options, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match=r"^the file system of output_dir .* has no locks") as caught:
        train(options(epochs=1))
    assert sum("has no locks" in str(warning.message) for warning in caught) == 1


def test_a_disk_without_room(options, tmp_path, stop, capsys):
    """The kernel refuses the second checkpoint: one line, an older model untouched, and the training can go on."""
    resource = pytest.importorskip("resource")
    train(options(epochs=1))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    unstop = stop(1, 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1])))
    try:
        with pytest.raises(OSError, match=r"^output_dir .*out has no room for the next checkpoint; the last good "
                                          r"checkpoint is in .*out/\.unfinished: free some space and run"):
            train(options(seeds=[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    unstop()
    capsys.readouterr()
    resumed = train(options(seeds=[1]))
    assert re.findall(r"epoch (\d)", capsys.readouterr().err) == ["2", "3"]
    whole = train(options(seeds=[1], output_dir=str(tmp_path / "whole")))
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))
    assert scores_alone(resumed) == scores_alone(whole)


def test_a_second_run_replaces_the_first(options, tmp_path):
    first = train(options(epochs=1))
    old = weights(first["output_dir"])
    (tmp_path / "out" / "notes.txt").write_text("mine")
    train(options(epochs=1, seeds=[1]))
    assert not same(old, weights(first["output_dir"]))
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*FILES, "notes.txt"])


def test_a_loss_that_is_no_number(options, tmp_path):
    with pytest.raises(RuntimeError, match=r"^(eval_)?loss is (nan|inf) at step \d+ of 30, with a highest lr of 1e"):
        train(options(lr=1e30))
    assert not (tmp_path / "out").exists()


# ---- trackers --------------------------------------------------------------------------------------------------------


def test_tensorboard(options, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    results = train(options(report_to="tensorboard", seeds=[0, 1]))
    for run in results["runs"]:
        events = reader.EventAccumulator(str(tmp_path / "out" / "runs" / f"seed-{run['seed']}")).Reload()
        scores = [event.value for event in events.Scalars("eval/accuracy")]
        assert (len(scores), scores[-1]) == (3, pytest.approx(run["accuracy"]))


def test_wandb_without_an_account(options, tmp_path, monkeypatch):
    """Offline: a run for each seed, nothing of it outside output_dir, no settings left."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    train(options(report_to="wandb", seeds=[0, 1], epochs=1))
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))) == 2
    assert os.listdir(tmp_path) == ["out"]
    assert not {"WANDB_DIR", "WANDB_PROJECT"} & os.environ.keys()


# ---- options and models that do not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "message"), [
    ({"warmup": 1.0}, "warmup is 1.0, expected 0 or more and less than 1."),
    ({"task": "sst3"}, "task is 'sst3', expected one of sst2, cola"),
    ({"benchmark": "superglue"}, "benchmark is 'superglue', expected one of glue, squad."),
    ({"benchmark": "squad", "task": "sst2"}, "task is 'sst2', but the benchmark squad has one task only: leave it"),
    ({"fraction": 0.0}, "fraction is 0.0, expected more than 0 and at most 1."),
    ({"model_name": "bert", "tokenizer_name": "x"}, "tokenizer_name is x, but model_name brings its own"),
    ({"tokenizer_name": "x", "vocab_size": 300}, "vocab_size is 300, but tokenizer_name brings its own"),
    ({"hold_out": 1.0}, "hold_out is 1.0, expected more than 0 and less than 1."),
    ({"num_dendrites": -1}, "num_dendrites is -1, expected 0 or more."),
    ({"head_hidden": 0}, "head_hidden is 0, expected more than 0."),
    ({"report_to": "mlflow"}, "report_to is 'mlflow', expected one of none, wandb, tensorboard."),
    ({"epochs": 0}, "epochs is 0, expected more than 0."),
    ({"batch_size": -1}, "batch_size is -1, expected more than 0."),
    ({"lr": float("nan")}, "lr is nan, expected more than 0."),
    ({"hidden_size": 0}, "hidden_size is 0, expected more than 0."),
    ({"word_dropout": 1.0}, "word_dropout is 1.0, expected 0 or more and less than 1."),
    ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob is -0.1, expected"),
    ({"seeds": []}, "seeds is [], expected one or more, all different."),
    ({"seeds": [1, 1]}, "seeds is [1, 1], expected one or more, all different."),
    ({"save_dtype": "int8"}, "save_dtype is 'int8', expected one of float32, float16, bfloat16."),
    ({"dsn": False}, "dsn is False and model_name is not given"),
    ({"model_name": "bert", "hidden_size": 32}, "hidden_size is 32, but model_name brings its own"),
    ({"max_length": 600}, "max_length is 600, but the position table has 512 rows: lower it."),
    ({"max_position_embeddings": 64}, "max_length is 128, but the position table has 64 rows: lower it."),
])
def test_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingOptions(**{"dsn": True} | changes)


def test_a_model_of_another_task(options, glue):
    output = train(options(epochs=1))["output_dir"]
    with pytest.raises(ValueError, match=r" has 2 labels, task 'stsb' has 1: pass a model trained on it\.$"):
        evaluate(output, "stsb", glue)


def test_data_that_is_not_there(options, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^data_dir .* holds no SST-2/train\.tsv"):
        train(options(data_dir=str(tmp_path)))
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_tokenizer(options, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"^the tokenizer of model_name .*empty cannot be loaded \(\w+Error\): pass a "):
        train(options(model_name=str(tmp_path / "empty")))
    assert not (tmp_path / "out").exists()


# ---- the embedded model ----------------------------------------------------------------------------------------------


def test_the_embedded_model_is_what_its_card_says():
    """At most 0.49 M live parameters and 2 MB; the card's five seeds average at least 81 %, and it holds the first."""
    files = {path.name: path.stat().st_size for path in Path(EMBEDDED_MODEL).iterdir()}
    assert sorted(files) == FILES
    assert sum(files.values()) <= 2_000_000
    card = (Path(EMBEDDED_MODEL) / "README.md").read_text(encoding="utf-8")
    model = AutoModelForSequenceClassification.from_pretrained(EMBEDDED_MODEL)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 490_000
    assert model.config.id2label == {0: "negative", 1: "positive"}
    rows = re.findall(r"^\| (\d+) \| (0\.\d+) \|", card, re.MULTILINE)
    assert [int(seed) for seed, _ in rows] == [0, 1, 2, 3, 4]
    assert statistics.mean(float(accuracy) for _, accuracy in rows) >= 0.81

    scores = evaluate(EMBEDDED_MODEL, "sst2", str(shared_path("data/glue")))
    assert (scores["num_examples"], scores["num_truncated"]) == (872, 0)
    assert scores["accuracy"] == pytest.approx(float(rows[0][1]), abs=0.0024)  # two sentences: rounding elsewhere
