"""The values that fit the rows: within their ranges from 50 rows to 5 million, and never in place of what is given."""

import math
from dataclasses import replace

import pytest

from dendritic_bert.training.defaults import fit_to_rows, fit_to_texts
from dendritic_bert.training.distillation_options import DistillationOptions
from dendritic_bert.training.options import TrainingOptions

RANDOM = {"train_file": "a.csv", "init": "random"}
SIZES = [1, 50, 100, 817, 15_000, 67_349, 5_000_000]


@pytest.mark.parametrize("num_labels", [1, 2, 150])
def test_from_50_rows_to_5_million(num_labels):
    """More rows take fewer epochs and more work; as many steps as a weight needs to move are made everywhere."""
    fitted = [fit_to_rows(TrainingOptions(**RANDOM), rows, num_labels) for rows in SIZES]
    assert [options.epochs for options in fitted] == sorted((options.epochs for options in fitted), reverse=True)
    assert [options.vocab_size for options in fitted] == sorted(options.vocab_size for options in fitted)
    for options, rows in zip(fitted, SIZES):
        assert 8 <= options.batch_size <= 512
        assert 1 <= options.epochs <= 30
        steps = options.epochs * math.ceil(rows / options.batch_size)
        assert rows < 50 or 0.9 < options.lr * steps < 4.1
        assert options.lr <= 0.03
    work = [options.epochs * rows for options, rows in zip(fitted, SIZES)]
    assert work == sorted(work)


def test_what_is_given_stays_and_decides_the_rest():
    given = {"epochs": 4, "batch_size": 10, "word_dropout": 0.0, "hidden_size": 7, "label_smoothing": 0.3}
    options = fit_to_rows(TrainingOptions(**RANDOM, **given), 1000, 2)
    assert {name: getattr(options, name) for name in given} == given
    assert options.lr == pytest.approx(1.4 / 400)  # 4 epochs of 100 steps
    assert options.train_file == ["a.csv"]


def test_a_checkpoint_brings_its_sizes():
    options = fit_to_rows(TrainingOptions(train_file="a.csv", model_name="bert"), 1000, 2)
    assert (options.hidden_size, options.vocab_size, options.lr, options.word_dropout) == (None, None, None, 0.0)
    assert options.learning_rate == 1e-4
    assert fit_to_rows(TrainingOptions(train_file="a.csv", tokenizer_name="t"), 1000, 2).vocab_size is None


@pytest.mark.parametrize(("num_rows", "num_labels", "word_dropout", "smoothing"), [
    (100, 2, 0.5, 0.0), (100, 4, 0.1, 0.1), (100, 10, 0.1, 0.1), (80, 2, 0.5, 0.0), (79, 2, 0.1, 0.1),
    (300, 4, 0.5, 0.0), (1500, 150, 0.1, 0.1), (15_000, 150, 0.2, 0.1), (5400, 4, 0.5, 0.0)])
def test_few_rows_of_a_class_keep_their_words(num_rows, num_labels, word_dropout, smoothing):
    options = fit_to_rows(TrainingOptions(**RANDOM), num_rows, num_labels)
    assert (options.word_dropout, options.label_smoothing) == (word_dropout, smoothing)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_single_labels_alone_are_smoothed(problem_type):
    options = TrainingOptions(**RANDOM)
    assert fit_to_rows(options, 1000, 150).label_smoothing == 0.1
    assert fit_to_rows(options, 1000, 150, problem_type).label_smoothing == 0.0


def test_a_benchmark_is_left_alone():
    options = TrainingOptions(dsn=True)
    assert fit_to_rows(options, 100, 2) is options


@pytest.mark.parametrize("num_labels", [1, 2, 4, 150])
def test_on_an_encoder_from_8_rows_to_5_million(num_labels):
    """As from random numbers, but what is pretrained goes less far, and the encoder brings sizes and vocabulary."""
    fitted = [fit_to_rows(TrainingOptions(train_file="a.csv"), rows, num_labels) for rows in [8, *SIZES[1:]]]
    assert [options.epochs for options in fitted] == sorted((options.epochs for options in fitted), reverse=True)
    for options, rows in zip(fitted, [8, *SIZES[1:]]):
        assert 8 <= options.batch_size <= 128
        assert 1 <= options.epochs <= (40 if num_labels == 1 else 15)  # one output is not fitted first
        assert options.lr <= 1e-3
        is_large = num_labels == 150 and rows >= 150 * 40
        assert options.lr * options.epochs * math.ceil(rows / options.batch_size) <= (1.8001 if is_large else 0.6001)
        assert (options.classifier_dropout, options.word_dropout) == ((0.5, 0.05) if is_large else (0.3, 0.1))
        assert (options.hidden_size, options.vocab_size, options.tokenizer_name) == (None, None, None)
        assert options.encoder_windows == ("off" if num_labels == 4 else "on")
    work = [options.epochs * rows for options, rows in zip(fitted, SIZES)]
    assert work[1:] == sorted(work[1:])


def test_what_is_given_stays_on_an_encoder():
    given = {"epochs": 4, "batch_size": 10, "word_dropout": 0.0, "classifier_dropout": 0.0, "encoder_windows": "off"}
    options = fit_to_rows(TrainingOptions(train_file="a.csv", **given), 1000, 2)
    assert {name: getattr(options, name) for name in given} == given
    assert options.lr == pytest.approx(0.3 / 400)  # 4 epochs of 100 steps
    assert fit_to_rows(TrainingOptions(train_file="a.csv"), 1000, 2, "regression").label_smoothing == 0.0


@pytest.mark.parametrize(("given", "factor"), [({}, 3), ({"dendrites": 1}, 30), ({"head_hidden": 8}, 10)])
def test_the_rate_of_a_head_follows_its_start(given, factor):
    """A regression, drawn for rows as they are, and drawn for standardised rows."""
    assert fit_to_rows(TrainingOptions(train_file="a.csv", **given), 1000, 2).head_lr_factor == factor


@pytest.mark.parametrize(("num_rows", "num_labels", "given", "has_regression"), [
    (159, 4, {}, False), (160, 4, {}, True), (100_001, 4, {}, False), (1000, 2, {}, False), (10_000, 77, {}, False),
    (1000, 2, {"encoder_windows": "off"}, True), (1000, 4, {"encoder_windows": "on"}, False),
    (1000, 4, {"head_hidden": 8}, False), (1000, 4, {"freeze_word_embeddings": True}, False)])
def test_words_count_by_themselves_where_a_bag_has_many_rows_of_a_class(num_rows, num_labels, given, has_regression):
    options = fit_to_rows(TrainingOptions(train_file="a.csv", **given), num_rows, num_labels)
    assert (options.add_words, options.word_share) == ((3, 0.4) if has_regression else (0, 0.0))


@pytest.mark.parametrize(("num_texts", "expected"), [(429_000, (512, 8)), (50, (8, 40)), (5_000_000, (512, 4))])
def test_what_is_left_to_the_texts(num_texts, expected):
    options = DistillationOptions(teacher="t", text_file="t.txt", lr=0.5)
    fitted = fit_to_texts(options, num_texts)
    assert (fitted.batch_size, fitted.epochs, fitted.hidden_size, fitted.vocab_size) == (*expected, None, None)
    options = fit_to_texts(replace(options, init="random"), num_texts)
    assert (options.batch_size, options.epochs, options.hidden_size, options.vocab_size) == (*expected, 32, 9600)
    assert (options.lr, options.window_dendrites, options.window_layers, options.pooling) == (0.5, 32, 5, "gated_mean")
