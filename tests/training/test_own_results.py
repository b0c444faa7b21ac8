"""Trainings and evaluations on rows of one's own, from a file to what is said of the model."""

import csv
import json
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from trained_files import FILES, same, weights
from transformers import AutoConfig, Trainer
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from dendritic_bert.datasets.rows import RowDataset
from dendritic_bert.inference.classifier import TextClassifier
from dendritic_bert.training import evaluate, own_results, train
from dendritic_bert.training.own_results import _warn_of_weak_results

PICTURES = ["confusion_matrix.png", "reliability.png"]


def test_from_a_file_to_a_model(own_options, tmp_path, capsys):
    """Columns are found and said, a tenth is held out, the baseline stands beside the score; the same seed gives the
    same bytes."""
    enable_progress_bar()  # which another test may have disabled
    results = train(own_options(baseline=True, calibrate=True))
    err = capsys.readouterr().err
    assert err.startswith("135 training rows (")
    assert "shards" not in err
    assert is_progress_bar_enabled()
    assert "columns: text 'text', label 'tone'" in err
    assert (results["num_train"], results["num_dev"], results["metric"], results["task"]) == (
        135, 15, "accuracy", "reviews")
    assert results["mean"] > 0.8
    assert results["baseline"]["accuracy"] > 0.8
    assert re.search(r"dev accuracy: [01]\.\d{4}; TF-IDF and logistic regression on the same rows: [01]\.\d{4}", err)
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == {0: "bad", 1: "good", 2: "mixed"}
    assert config.temperature == results["temperature"] > 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES, *PICTURES])
    classifier = TextClassifier.from_pretrained(tmp_path / "out")
    assert [found["label"] for found in classifier(["a wonderful film", "a tedious film"])] == ["good", "bad"]
    train(own_options(output_dir=str(tmp_path / "again")))
    assert same(weights(tmp_path / "out"), weights(tmp_path / "again"))


def test_another_delimiter_is_the_same_training(own_options, reviews, tmp_path):
    with open(reviews / "reviews.csv", newline="") as commas, open(tmp_path / "reviews.csv", "w") as semicolons:
        csv.writer(semicolons, delimiter=";", lineterminator="\n").writerows(csv.reader(commas))
    train(own_options(epochs=1, output_dir=str(tmp_path / "commas")))
    train(own_options(epochs=1, train_file=str(tmp_path / "reviews.csv"), delimiter=";"))
    assert same(weights(tmp_path / "commas"), weights(tmp_path / "out"))


def test_a_model_that_has_learnt_nothing(own_options):
    with pytest.warns(UserWarning, match=r"^accuracy 0\.\d+ is not above the share of the most frequent label, 0\.3333,"
                                         " so nothing was learnt: see whether the columns"):
        train(own_options(lr=1e-9, epochs=1))


def test_dev_rows_of_one_label():
    """Nothing can be said of what was learnt."""
    results = {"metric": "accuracy", "runs": [{"accuracy": 1.0}], "majority": 1.0}
    with pytest.warns(UserWarning, match=r"^all dev rows have the same label, so that accuracy 1\.0000 says "
                                         r"nothing: pass a --dev_file with other labels too, or a larger --hold_out"):
        _warn_of_weak_results(results, num_classes=1)


@pytest.mark.parametrize(("macro_f1", "is_warned"), [(0.82, False), (0.487, True), (0.37, True)])
def test_a_model_that_finds_a_rare_class_has_learnt_something(macro_f1, is_warned):
    """Of 95 rows in a hundred, the constant answer has an F1 of 0.487, the mean of 2 x 0.95 / 1.95 and 0."""
    results = {"metric": "accuracy", "runs": [{"accuracy": 0.945, "macro_f1": macro_f1}], "majority": 0.95}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warn_of_weak_results(results, num_classes=2)
    assert ["nothing was learnt" in str(warning.message) for warning in caught] == [True] * is_warned


def test_a_regression_that_is_no_better_than_the_mean():
    results = {"metric": "pearson", "runs": [{"pearson": 0.45, "r2": -64.0}], "majority": None}
    with pytest.warns(UserWarning, match=r"^r2 -64\.0000 is not above 0, that of the mean of the numbers, so nothing"):
        _warn_of_weak_results(results, num_classes=80)


@pytest.mark.parametrize(("score", "error", "baseline", "said"), [
    (0.7, {}, 0.8, ["0.8000: search"]), (0.8, {}, 0.8, []), (0.9, {}, 0.8, []),
    (0.7, {"standard_error": 0.09}, 0.8, ["0.8000: search"]),
    (0.7, {"standard_error": 0.11}, 0.8, ["0.8000 (a difference within one standard error, 0.1100): search"])])
def test_a_model_below_the_baseline(score, error, baseline, said):
    """It is warned of, and a difference within the standard error is called so."""
    results = {"metric": "accuracy", "runs": [{"accuracy": score, **error}], "majority": 0.5,
               "baseline": {"accuracy": baseline, "name": "TF-IDF"}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warn_of_weak_results(results, num_classes=2)
    assert [str(warning.message).partition(" for better")[0] for warning in caught] == [
        f"accuracy 0.7000 is below that of TF-IDF on the same rows, {end}" for end in said]


def test_a_dev_file_is_scored_and_reported(own_options, reviews, tmp_path):
    """What is trained on a dev file is scored on it as ``evaluate`` scores it; the wrong rows are written."""
    results = train(own_options(dev_file=str(reviews / "dev.csv"), epochs=2))
    assert results["num_dev"] == 45
    found = evaluate(results["output_dir"], dev_file=str(reviews / "dev.csv"), label_column="tone",
                     output_dir=str(tmp_path / "report"))
    assert found["accuracy"] == results["mean"]
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())
    with open(tmp_path / "report" / "wrong.csv", newline="", encoding="utf-8") as file:
        wrong = list(csv.DictReader(file))
    assert len(wrong) == 45 - round(45 * found["accuracy"])
    assert all(row["label"] != row["predicted"] for row in wrong)
    rows = (reviews / "dev.csv").read_text().replace(",mixed,", ",odd,", 1)
    (tmp_path / "odd.csv").write_text(rows)
    with pytest.raises(ValueError, match=r"odd\.csv, line 4.*'odd'"):
        evaluate(results["output_dir"], dev_file=str(tmp_path / "odd.csv"), label_column="tone")
    found = evaluate(results["output_dir"], dev_file=str(tmp_path / "odd.csv"), label_column="tone", on_error="skip")
    assert (found["num_examples"], found["num_skipped"]) == (rows.count("\n") - 2, 1)
    assert "num_replaced" not in found
    (tmp_path / "odd.csv").write_bytes((reviews / "dev.csv").read_bytes().replace(b"a", b"\xe4", 3))
    found = evaluate(results["output_dir"], dev_file=str(tmp_path / "odd.csv"), label_column="tone", on_error="skip")
    assert found["num_replaced"] > 0


def test_long_texts_are_scored_as_they_will_be_read(own_options, reviews, capsys):
    """Training rows are cut, which is said; dev rows are not."""
    results = train(own_options(dev_file=str(reviews / "dev.csv"), max_length=4, max_position_embeddings=0, epochs=3,
                                embedding_norm="none"))
    assert ("warning: 150 of 150 training rows are longer than max_length, 4 tokens, and are cut there; dev rows are "
            "read whole\n") in capsys.readouterr().err
    found = evaluate(results["output_dir"], dev_file=str(reviews / "dev.csv"))
    run = results["runs"][0]
    assert {name: found[name] for name in ("accuracy", "log_loss")} == {
        "accuracy": run["accuracy"], "log_loss": pytest.approx(run["log_loss"])}
    assert found["num_truncated"] == 0


def write_table(path, header, line, size):
    path.write_text(header + "\n" + "".join(line(i) + "\n" for i in range(size)))
    return str(path)


def test_a_model_reads_the_columns_that_it_was_trained_on(own_options, tmp_path, capsys, recwarn):
    """Of several labels a row, too; a model that goes on on other rows has their columns."""
    tones, kinds = ("good", "bad"), ("film", "book", "song")

    def line(i):
        tone, kind = tones[i % 2], kinds[i % 3]
        return f"{i % 5} words of a title,{tone} {kind} {i},{tone};{kind},{tone}"

    files = [write_table(tmp_path / name, "title,body,tags,tone", line, 60) for name in ("train.csv", "dev.csv")]
    out = own_options().output_dir
    train(own_options(train_file=files[0], text_column="body", label_column="tags", label_separator=";", epochs=1))
    columns = {"text_column": "body", "label_column": "tags", "label_separator": ";"}
    assert AutoConfig.from_pretrained(out).training_columns == columns
    capsys.readouterr()
    found = evaluate(out, dev_file=files[1])
    assert capsys.readouterr().err == "columns: text 'body', label 'tags'\n"
    assert evaluate(out, dev_file=files[1], text_column="title") != found
    assert capsys.readouterr().err.endswith("label 'tags'; the model was trained on the column 'body'\n")
    given = {"text_column": "title", "text_pair_column": "body"}
    assert evaluate(out, dev_file=files[1], **columns) == found != evaluate(out, dev_file=files[1], **given)
    assert "trained on single texts, of the column 'body', but pairs are read from" in str(recwarn.pop().message)
    TextClassifier.from_pretrained(out).classify_file(files[1], tmp_path / "labels.csv")
    with open(tmp_path / "labels.csv", newline="") as file:
        assert next(csv.DictReader(file))["text"] == "good film 0"
    train(own_options(train_file=files[0], label_column="tone", model_name=out, epochs=1, hidden_size=None,
                      vocab_size=None, problem_type="single_label_classification", output_dir=str(tmp_path / "more"),
                      **given))
    pairs = {"text_column": "title", "text_pair_column": "body", "label_column": "tone"}
    assert AutoConfig.from_pretrained(tmp_path / "more").training_columns == pairs


def test_numbers_and_several_labels(own_options, reviews, tmp_path):
    results = train(own_options(label_column="stars", problem_type="regression", baseline=True, epochs=20))
    assert results["metric"] == "pearson"
    assert results["mean"] > 0.5
    assert set(results["baseline"]) >= {"pearson", "rmse"}
    lines = ["text,tags", *(f"{('good', 'bad')[i % 2]} {('film', 'book', 'song')[i % 3]} {i},"
                            f"{('good', 'bad')[i % 2]};{('film', 'book', 'song')[i % 3]}" for i in range(90))]
    (tmp_path / "tags.csv").write_text("\n".join(lines) + "\n")
    results = train(own_options(train_file=str(tmp_path / "tags.csv"), label_column="tags", label_separator=";",
                                class_weights="balanced", epochs=20, lr=0.02))
    assert results["metric"] == "micro_f1"
    assert results["mean"] > 0.8
    assert AutoConfig.from_pretrained(tmp_path / "out").problem_type == "multi_label_classification"


def test_the_loss_is_weighted(own_options, monkeypatch):
    """The Trainer gets a loss with scikit-learn's weights for the classes."""
    found = []
    monkeypatch.setattr(Trainer, "train", lambda trainer, **_: found.append(
        (trainer.compute_loss_func.keywords["weights"], trainer.train_dataset.rows.labels)))
    train(own_options(class_weights="balanced", hold_out=0.23))
    given, labels = found[0]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.asarray(labels))
    np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_early_stopping_keeps_the_best_epoch(own_options, monkeypatch, capsys):
    """The loss on the dev rows rises at this learning rate: the training ends early, and the best epoch is scored."""
    losses, best = [], []
    evaluation, run = Trainer.evaluate, Trainer.train
    monkeypatch.setattr(Trainer, "evaluate", lambda trainer, *args, **kwargs: [
        found := evaluation(trainer, *args, **kwargs), losses.append(found["eval_loss"])][0])
    monkeypatch.setattr(Trainer, "train", lambda trainer, **kwargs: [
        run(trainer, **kwargs), best.append(evaluation(trainer)["eval_loss"])])
    train(own_options(early_stopping=True, patience=2, epochs=60, lr=0.3))
    capsys.readouterr()
    assert len(losses) < 60
    assert min(losses) == losses[-3] == pytest.approx(best[0])


def test_training_goes_on_with_new_labels(own_options, tmp_path, capsys):
    """The outputs of known labels start as they ended; a label that is new gets an output of its own."""
    train(own_options(num_dendrites=1))
    before = TextClassifier.from_pretrained(tmp_path / "out").model
    lines = ["text,tone", *(f"{('wonderful', 'noisy')[i % 2]} film {i},{('good', 'loud')[i % 2]}" for i in range(60))]
    (tmp_path / "loud.csv").write_text("\n".join(lines) + "\n")
    options = own_options(train_file=str(tmp_path / "loud.csv"), model_name=str(tmp_path / "out"), lr=1e-12,
                          hidden_size=None, vocab_size=None, epochs=1, output_dir=str(tmp_path / "more"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it learns nothing at this rate
        train(options)
    assert "knows 3 of 4 labels; new: loud" in capsys.readouterr().err
    after = TextClassifier.from_pretrained(tmp_path / "more").model
    assert after.config.id2label == {0: "bad", 1: "good", 2: "mixed", 3: "loud"}
    assert after.config.num_dendrites == 1
    ids = np.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        logits = [model(input_ids=torch.from_numpy(ids)).logits for model in (before, after)]
    torch.testing.assert_close(logits[1][:, :3], logits[0], rtol=0, atol=1e-5)


def test_an_interruption_keeps_the_last_epoch(own_options, tmp_path, monkeypatch, every_epoch):
    whole = RowDataset.set_epoch

    def set_epoch(dataset, number):
        if dataset.word_dropout and number == 2:
            raise KeyboardInterrupt
        whole(dataset, number)

    monkeypatch.setattr(RowDataset, "set_epoch", set_epoch)
    with pytest.raises(KeyboardInterrupt, match=r"^\(the model of the last whole epoch is in .*out, the same command"):
        train(own_options())
    classifier = TextClassifier.from_pretrained(tmp_path / "out")
    assert classifier("a wonderful film")[0]["label"] in {"bad", "good", "mixed"}
    monkeypatch.setattr(RowDataset, "set_epoch", whole)
    train(own_options())
    train(own_options(output_dir=str(tmp_path / "whole")))
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_an_interrupted_training_does_not_go_on_with_other_labels(own_options, reviews, tmp_path, monkeypatch):
    """Two classes are swapped in the file: the texts, and the numbers of rows and classes, are the same."""
    def stop(dataset, number):
        raise KeyboardInterrupt

    whole = RowDataset.set_epoch
    monkeypatch.setattr(RowDataset, "set_epoch", lambda dataset, number: (
        stop(dataset, number) if dataset.seed == 1 and number else whole(dataset, number)))
    options = {"seeds": [0, 1], "train_file": str(tmp_path / "own.csv")}
    table = (reviews / "reviews.csv").read_text()
    (tmp_path / "own.csv").write_text(table)
    with pytest.raises(KeyboardInterrupt):
        train(own_options(**options))
    monkeypatch.setattr(RowDataset, "set_epoch", whole)
    swap = {"good": "bad", "bad": "good"}
    rows = list(csv.reader(table.splitlines()))
    place = rows[0].index("tone")
    with open(tmp_path / "own.csv", "w", newline="") as file:
        csv.writer(file).writerows([*row[:place], swap.get(row[place], row[place]), *row[place + 1:]] for row in rows)
    train(own_options(**options))
    train(own_options(**options, output_dir=str(tmp_path / "whole")))
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_training_goes_on_with_the_columns_and_the_kind_of_labels(own_options, tmp_path):
    """A second file whose rows would be read otherwise by themselves: another separator, and a likelier column."""
    lines = ["comment,notes,tags", *(f"{('wonderful', 'noisy')[i % 2]} film {i},a much longer note {i},"
                                     f"{('good', 'good;loud')[i % 2]}" for i in range(60))]
    (tmp_path / "tags.csv").write_text("\n".join(lines) + "\n")
    options = {"train_file": str(tmp_path / "tags.csv"), "label_column": "tags", "epochs": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is learnt in an epoch
        train(own_options(**options, text_column="comment", label_separator=";"))
        train(own_options(**options, text_column=None, model_name=str(tmp_path / "out"), hidden_size=None,
                          vocab_size=None, output_dir=str(tmp_path / "more")))
    config = TextClassifier.from_pretrained(tmp_path / "more").model.config
    assert config.training_columns == {"text_column": "comment", "label_column": "tags", "label_separator": ";"}
    assert (config.problem_type, config.id2label) == ("multi_label_classification", {0: "good", 1: "loud"})


def test_numbers_of_any_size_are_learnt(own_options, tmp_path):
    """R2 is that of the same numbers around 0."""
    rng = np.random.default_rng(0)
    words = {"great": 2.0, "good": 1.0, "poor": -1.0, "awful": -2.0}
    texts = [rng.choice(list(words), 3) for _ in range(120)]
    found = []
    for number, (mean, scale) in enumerate([(0, 1), (10_000, 1_000), (-0.2, 0.001)]):
        lines = [f"a {' '.join(text)} film,{mean + scale * sum(map(words.get, text))!r}" for text in texts]
        (tmp_path / "numbers.csv").write_text("\n".join(["text,amount", *lines]) + "\n")
        results = train(own_options(train_file=str(tmp_path / "numbers.csv"), label_column="amount",
                                    problem_type="regression", epochs=20, hidden_size=None, vocab_size=None,
                                    output_dir=str(tmp_path / str(number))))
        found.append(results["runs"][0]["r2"])
    assert min(found) > 0.9
    assert found == pytest.approx(found[:1] * 3, abs=0.03)


def test_no_baseline_of_very_many_classes(own_options, monkeypatch, capsys):
    monkeypatch.setattr(own_results, "MOST_CLASSES", 2)
    results = train(own_options(epochs=1, baseline=True))
    assert "baseline" not in results
    assert "no baseline: TF-IDF with a logistic regression for each of 3 classes would take minutes" in (
        capsys.readouterr().err)


def test_dendrites_grow_on_the_encoder(own_options):
    results = train(own_options(dendrites=1, epochs=2, hidden_size=None, vocab_size=None))
    assert results["start"] == "the pretrained encoder of the package, without its windows"
    assert results["runs"][0]["num_dendrites"] in (0, 1)
