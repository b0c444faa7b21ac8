"""A classifier in scikit-learn's manner: ``fit(texts, labels)``, ``predict``, ``predict_proba``."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import assert_all_finite, check_is_fitted
except ImportError as error:
    raise ImportError("scikit-learn is not installed: pip install 'dendritic-bert[train]'.") from error
from transformers import set_seed

from .datasets.in_memory import InMemoryRows
from .datasets.rows import RowDataset
from .inference.classifier import TextClassifier
from .training.data_options import expect_seed
from .training.defaults import fit_to_rows
from .training.fit import fit as fit_model
from .training.fit import without_shard_bars
from .training.initialization import build_model, choose_start, longest_row, make_tokenizer, start_added_words
from .training.losses import make_loss, weighted_loss
from .training.options import TrainingOptions
from .training.workspace import Workspace

MIN_FLOAT = np.finfo(np.float64).tiny  # by which weights may be divided where all are 0
# Parameters that are options of ``TrainingOptions`` of the same name.
OPTIONS = ("model_name", "init", "tokenizer_name", "dsn", "epochs", "batch_size", "lr", "head_lr_factor",
           "weight_decay", "word_dropout", "classifier_dropout", "label_smoothing", "vocab_size", "hidden_size",
           "num_dendrites", "max_length")


class DendriticBertClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of texts, trained from the pretrained encoder of the package, another checkpoint or random numbers,
    for Pipeline and GridSearchCV.

    X is n texts, as a list, a numpy array or a pandas Series of str, or n pairs of texts, as an array or a DataFrame of
    two columns or a list of tuples. y is n classes of any type that can be sorted, or an indicator matrix ``[n, C]`` of
    several labels a row. All rows are trained on; nothing is printed, and nothing is left on the disk.

    Args:
        model_name, init, tokenizer_name, dsn, num_dendrites, max_length: options of ``TrainingOptions``.
        epochs, batch_size, lr, head_lr_factor, weight_decay: options of it, too; None is what fits the number of rows.
        word_dropout, classifier_dropout, label_smoothing, vocab_size, hidden_size: the same.
        class_weight: None, "balanced", or a dict of class and weight, as in scikit-learn.
        random_state: the seed; the same gives the same model. None draws one, and a RandomState is drawn from.

    Attributes:
        classes_: ``[C]``, the classes in sorted order, in the dtype of y; 0 to C - 1 for an indicator matrix.
        n_features_in_: 1 for texts, 2 for pairs.
        classifier_: the trained ``TextClassifier``.
    """

    classes_: np.ndarray
    n_features_in_: int
    classifier_: TextClassifier

    def __init__(
        self, model_name: str | None = None, *, init: str | None = None, tokenizer_name: str | None = None,
        dsn: bool = True, epochs: int | None = None, batch_size: int | None = None, lr: float | None = None,
        head_lr_factor: float | None = None, weight_decay: float | None = None, word_dropout: float | None = None,
        classifier_dropout: float | None = None, label_smoothing: float | None = None, vocab_size: int | None = None,
        hidden_size: int | None = None, num_dendrites: int = 0, max_length: int | None = None,
        class_weight: Any = None, random_state: Any = 0,
    ) -> None:
        self.model_name = model_name
        self.init = init
        self.tokenizer_name = tokenizer_name
        self.dsn = dsn
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.head_lr_factor = head_lr_factor
        self.weight_decay = weight_decay
        self.word_dropout = word_dropout
        self.classifier_dropout = classifier_dropout
        self.label_smoothing = label_smoothing
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_dendrites = num_dendrites
        self.max_length = max_length
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DendriticBertClassifier:
        """Train on n rows; ``sample_weight`` is ``[n]``, the weight of each row in the loss.

        Raises TypeError for an X that is not of texts, and ValueError for parameters, lengths, weights or a y that
        cannot be used.
        """
        columns = self._columns(X, reset=True)
        labels, is_indicator = self._number_labels(y, len(columns[0]))
        weights = self._weigh_rows(y, len(columns[0]), sample_weight)
        problem_type = f"{'multi' if is_indicator else 'single'}_label_classification"
        rows = InMemoryRows(columns, labels, list(map(str, self.classes_.tolist())), problem_type)
        self.classifier_ = self._train(rows, weights)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row ``[n]``, or ``[n, C]`` of 0 and 1: each label with a probability above one half."""
        found = self.predict_proba(X)
        if self.classifier_.model.config.problem_type == "multi_label_classification":
            return (found > 0.5).astype(np.int64)
        return self.classes_[found.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities ``[n, C]`` float32 of the classes in the order of ``classes_``."""
        check_is_fitted(self)
        columns = self._columns(X, reset=False)
        return self.classifier_.predict_array(columns[0], columns[1] if len(columns) == 2 else None)[1]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer to ``folder``, from which ``TextClassifier.from_pretrained`` loads them; the names
        of the labels are the classes as str."""
        check_is_fitted(self)
        self.classifier_.model.save_pretrained(folder)
        self.tokenizer_.save_pretrained(folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.classifier_tags.multi_label = True
        tags.target_tags.required = True
        return tags

    def _columns(self, X: Any, reset: bool) -> tuple[list[str], ...]:
        """The texts of X: one list, or two for pairs. ``reset`` says how many there are, which later X must have too.
        """
        columns = text_columns(X)
        if reset:
            self.n_features_in_ = len(columns)
        elif len(columns) != self.n_features_in_:
            raise ValueError(f"X has {len(columns)} features, but {type(self).__name__} is expecting "
                             f"{self.n_features_in_} features as input.")
        return columns

    def _number_labels(self, y: Any, num_rows: int) -> tuple[np.ndarray, bool]:
        """``classes_`` and y by numbers, as the loss takes them, and whether y is an indicator matrix."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if isinstance(getattr(y, "dtype", None), np.dtype) and y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        missing = next((row for row, label in enumerate(y) if _is_missing(label)), None) if _is_column(y) else None
        if missing is not None:
            raise ValueError(f"y[{missing}] is missing: fill it, or leave the row out.")
        numpy_dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
        if numpy_dtype is not None:  # of pandas, which scikit-learn would make floats
            y = y.to_numpy(numpy_dtype)
        is_indicator = type_of_target(y, input_name="y", raise_unknown=True) == "multilabel-indicator"
        if is_indicator:
            numbers: np.ndarray = np.asarray(y.toarray() if hasattr(y, "toarray") else y, np.float32)
            others = numbers[(numbers != 0) & (numbers != 1)]
            if others.size:  # of which the loss would make targets below 0 and above 1
                raise ValueError(f"y is an indicator matrix that holds {others[0]:g}: pass 1 for a label that a row "
                                 f"has and 0 for one that it has not, such as (y == {numbers.max():g}).astype(int).")
            self.classes_ = np.arange(numbers.shape[1])
        else:
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            self.classes_, numbers = np.unique(y, return_inverse=True)
        check_consistent_length(np.empty(num_rows), numbers)
        if not is_indicator and len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_[0]!r}: a classifier needs rows of two classes or more.")
        return numbers, is_indicator

    def _weigh_rows(self, y: Any, num_rows: int, sample_weight: Any) -> np.ndarray | None:
        """The weight of each row, 1 on average; None if all weigh the same."""
        if sample_weight is None and self.class_weight is None:
            return None
        weights = np.ones(num_rows) if sample_weight is None else column_or_1d(sample_weight).astype(np.float64)
        check_consistent_length(np.empty(num_rows), weights)
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError("sample_weight holds a number that is negative, infinite or NaN: pass finite weights of 0 "
                             "and more.")
        if self.class_weight is not None:
            of_classes = compute_sample_weight(self.class_weight, y)
            wrong = of_classes[~(np.isfinite(of_classes) & (of_classes >= 0))]
            if len(wrong):
                raise ValueError(f"class_weight holds {wrong[0]:g}: pass finite weights of 0 and more.")
            weights = weights / max(weights.max(), MIN_FLOAT) * (of_classes / max(of_classes.max(), MIN_FLOAT))
        if not weights.max() > 0:
            raise ValueError("sample_weight is zero for every row: at least one must be positive.")
        weights = weights / weights.max()  # whose sum is finite
        return weights * len(weights) / weights.sum()

    def _train(self, rows: InMemoryRows, weights: np.ndarray | None) -> TextClassifier:
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        expect_seed("random_state", int(seed))
        parameters = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        given = {name: value.item() if isinstance(value, np.generic) else value  # a ParameterGrid of arrays has such
                 for name, value in parameters.items()}
        with (tempfile.TemporaryDirectory() as folder, _random_numbers_of_its_own(int(seed)),
              without_shard_bars()):
            options = TrainingOptions(benchmark="own", output_dir=folder, seeds=[int(seed)], **given)
            options = choose_start(options, rows.texts(), rows.settings)
            options = fit_to_rows(options, rows.num_train, rows.settings["num_labels"], rows.settings["problem_type"])
            self.tokenizer_ = make_tokenizer(options, rows.texts())
            encoded, dev = rows.encode(self.tokenizer_, options.max_length)
            assert encoded is not None
            model = build_model(rows.model_class, options, rows.settings, len(self.tokenizer_))
            if options.init == "encoder":
                start_added_words(model, self.tokenizer_)
            smoothing = options.label_smoothing or 0.0
            problem_type = rows.settings["problem_type"]
            loss: Callable[..., Tensor] | None = make_loss(problem_type, smoothing, None)
            if weights is not None:
                labels = np.column_stack([encoded.labels, weights])  # float64 holds every class exactly
                encoded = encoded._replace(labels=labels)
                loss = partial(weighted_loss, problem_type=problem_type, label_smoothing=smoothing)
            train_set = RowDataset(encoded, options.word_dropout, self.tokenizer_.all_special_ids, int(seed))
            fit_model(model, train_set, dev, rows, loss, options, int(seed), Workspace(Path(folder), {}, True),
                      quiet=True)
        self.tokenizer_.model_max_length = longest_row(model.config)
        return TextClassifier(model.to("cpu"), self.tokenizer_)


def _is_column(y: Any) -> bool:
    """Whether y has one label for each row, and not a matrix of them."""
    return isinstance(y, Iterable) and not hasattr(y, "toarray") and getattr(y, "ndim", 1) == 1


def _is_missing(label: Any) -> bool:
    """Whether a label is None, NaN or pandas' NA, which is neither equal to itself nor not."""
    try:
        return label is None or bool(label != label)
    except TypeError:
        return True
    except ValueError:  # an array, which is a row of a matrix
        return False


def text_columns(X: Any) -> tuple[list[str], ...]:
    """X as one list of n texts, or two of the first and the second texts of n pairs.

    Raises TypeError for what is not of texts, ValueError for no rows or a wrong number of columns.
    """
    if isinstance(X, (str, bytes)):
        raise TypeError("X is one text, expected a list or an array of texts: pass [text].")
    array = X.to_numpy() if hasattr(X, "to_numpy") else X
    if not isinstance(array, np.ndarray):
        if not hasattr(array, "__iter__") or hasattr(array, "toarray"):
            raise TypeError(f"X is a {type(X).__name__}, expected a list or an array of texts.")
        rows = list(array)
        array = np.empty(len(rows), object)
        array[:] = rows
        if rows and all(isinstance(row, (tuple, list, np.ndarray)) and len(row) == len(rows[0]) for row in rows):
            array = np.array([list(row) for row in rows], object)
    if array.ndim == 2 and not 1 <= array.shape[1] <= 2:
        raise ValueError(f"X has {array.shape[1]} columns, expected 1 of texts, or 2 of pairs of texts.")
    if array.ndim not in (1, 2):
        raise ValueError(f"X has {array.ndim} dimensions, expected 1 of texts, or 2 of pairs of texts.")
    if not len(array):
        raise ValueError("Found array with 0 sample(s) (X has no rows) while a minimum of 1 is required.")
    columns = tuple(array.tolist() for array in (array[:, None] if array.ndim == 1 else array).T)
    for column in columns:
        for row, text in enumerate(column):
            if not isinstance(text, str):
                raise TypeError(f"X[{row}] is {text!r:.40}, expected a str: this classifier takes texts. Fill what is "
                                "missing with '', and turn what else there is into words.")
    return columns


@contextmanager
def _random_numbers_of_its_own(seed: int) -> Iterator[None]:
    """The seed for what draws random numbers, and the callers' states of the generators afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
