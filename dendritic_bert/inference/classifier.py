"""Classification of texts: lists, streams, and files of any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..embedded_model import EMBEDDED_MODEL
from ..model.dsn_checkpoint import table_dtype_of
from ..model.inference_tables import served_window_dtype
from .columns import warn_of_other_kind
from .file_classification import FileReport, classify_file
from .scores import Answers, Prediction, label_names
from .streams import PathOrStream
from .text_logits import BATCH_SIZE, TextLogits
from .texts import check_texts, split_pairs
from .threads import check_positive, thread_count, torch_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..model.dsn_checkpoint import DsnCheckpoint
    from .explanation import Explanation

NO_OPTIONS = {"top_k": "", "function_to_apply": None, "threshold": None, "abstain_below": None, "all_scores": False}


class TextClassifier(TextLogits):
    """Classifies texts as transformers' text-classification pipeline does, from packed ids and in one kernel.

    ``model`` is a ``DendriticBertForSequenceClassification``, or the ``DsnCheckpoint`` of one, of which the attribute
    ``model`` makes the model when it is first asked for. ``tokenizer`` is anything that ``PackedTokenizer`` takes.
    ``max_length`` is the size of the model's position table, or the tokenizer's ``model_max_length`` if that is less;
    None where neither sets a limit. Longer texts are cut on the tokenizer's ``truncation_side``; ``num_truncated``
    counts them over the life of the classifier.

    Calls may overlap, and do not change torch's number of threads. A classifier can be pickled and copied; the copy
    counts from 0.

    Raises ValueError if the tokenizer has ids for which the model has no embedding, or if the ``id2label`` of the
    configuration does not name every label.
    """

    embedded = EMBEDDED_MODEL

    def __init__(self, model: PreTrainedModel | DsnCheckpoint, tokenizer: Any):
        super().__init__(model, tokenizer)
        self.labels = label_names(self.config.id2label, self._source.num_labels)
        self._answers = self._make_answers({})
        self._trained = self.config.training_columns
        self._of_pairs = "text_pair_column" in (self._trained or {})

    def __call__(
        self,
        texts: str | Iterable[str] | Mapping[str, str] | Iterable[Mapping[str, str]],
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        *,
        top_k: int | Literal[""] | None = "",
        function_to_apply: str | None = None,
        threshold: float | None = None,
        abstain_below: float | None = None,
    ) -> Any:
        """Classify one text or many, or pairs of texts: what transformers' pipeline gives, in order.

        The result is a list with one ``{"label": str, "score": float}`` per text: the largest value of the softmax; of
        the sigmoid if the problem is multi-label or there is one label; of the logits in regression. With ``top_k`` or
        ``threshold`` each of its elements is itself a list of labels, the highest score first. As in the pipeline, the
        result for a single str is then the list of its labels, and that for a single pair is the element alone.

        Args:
            texts: a str, or what ``check_texts`` takes; or a pair ``{"text": str, "text_pair": str}``, or many pairs.
            batch_size: how many texts are classified at a time.
            threads: the number of worker threads; None is torch's own number.
            top_k: how many labels of each text; None is all of them. By default the best one, not in a list.
            function_to_apply: "sigmoid", "softmax" or "none", which gives logits; None is as said above. Logits are
                divided by the temperature of the configuration first, except with "none" and in regression.
            threshold: give every label with this score or more, which may be none: for multi-label problems.
            abstain_below: where the score is lower, the label is None.

        Raises TypeError for a text that is not a str, and ValueError for an argument out of its range and for a score
        that is NaN or infinite, naming the text. Warns where the model was trained on pairs and a text is single, or
        the reverse.
        """
        if top_k == "" and function_to_apply is None and threshold is None and abstain_below is None:
            best = self._best(texts, batch_size, threads)
            if best is not None:
                return best
        answers = self.answers(top_k=top_k, function_to_apply=function_to_apply, threshold=threshold,
                               abstain_below=abstain_below)
        first, second = split_pairs(texts)
        self._warn_of_other_kind(second is not None)
        results: list[Any] = []
        for _, said in self._map_logits(answers.dicts, first, second, batch_size, threads):
            results += said
        if isinstance(texts, Mapping) or (isinstance(texts, str) and answers.is_list):
            return results[0]
        return results

    def _best(self, texts: Any, batch_size: int, threads: int | None) -> list[dict[str, Any]] | None:
        """The result of a call without options, from the engine; None for what takes the general way."""
        if type(texts) is str:
            texts = [texts]
        elif type(texts) is not list:
            return None
        check_positive("batch_size", batch_size)
        if self._of_pairs:
            return None
        found = self._engine.answers(self, texts, thread_count(threads), *self._answers.rule, self.labels)
        if found is None:
            return None
        answers, num_truncated = found
        if num_truncated:
            self.count_truncated(num_truncated)
        return answers

    def predict_array(
        self,
        texts: Iterable[str],
        text_pairs: Iterable[str] | None = None,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        *,
        function_to_apply: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Classify B texts, or pairs of texts, into arrays: labels ``[B]`` int32 and scores ``[B, C]`` float32.

        A label is the index in ``labels`` of the highest score. ``texts`` is what ``check_texts`` takes, such as an
        array of numpy, a Series of pandas or an array of Arrow, and ``text_pairs`` the second texts. The arrays are the
        same to the bit for any number of threads. The other arguments, the errors and the warning are those of a call.
        """
        answers = self.answers(function_to_apply=function_to_apply)
        check_positive("batch_size", batch_size)
        self._warn_of_other_kind(text_pairs is not None)
        found = self._engine.scores(self, texts, text_pairs, thread_count(threads), *answers.rule)
        if found is not None:
            scores, labels, num_truncated, row = found
            self._expect_finite(row)
            self.count_truncated(num_truncated)
            return labels, scores
        first = check_texts(texts)
        second = None if text_pairs is None else check_texts(text_pairs, "text_pairs")
        if second is not None and len(second) != len(first):
            raise ValueError(f"text_pairs has {len(second)} texts and texts {len(first)}: pass one for each.")
        labels = np.empty(len(first), np.int32)
        scores = np.empty((len(first), len(self.labels)), np.float32)
        for start, batch in self._map_logits(answers.scores, first, second, batch_size, threads):
            scores[start:start + len(batch)] = batch
            labels[start:start + len(batch)] = batch.argmax(axis=1)
        return labels, scores

    def _warn_of_other_kind(self, is_pair: bool) -> None:
        warn_of_other_kind(self._trained, is_pair, "classified", "pass the second texts as text_pair or text_pairs"
                           if self._of_pairs else "leave out the second ones")

    def label_names(self) -> list[str]:
        """The labels of the logits, in order."""
        return self.labels

    def answers(self, **options: Any) -> Answers:
        """What this model says of a text; ``options`` are those of ``Answers``."""
        return self._answers if options.items() <= NO_OPTIONS.items() else self._make_answers(options)

    def _make_answers(self, options: dict[str, Any]) -> Answers:
        config = self.config
        return Answers(self.labels, config.problem_type, config.temperature, **options)

    def predict(self, texts: list[str], text_pairs: list[str] | None = None) -> Prediction:
        """The best label of each text, in one batch on the calling thread; ``num_truncated`` stays as it is."""
        answers = self.answers()
        logits, num_truncated = self.logits(texts, text_pairs)
        return Prediction(*answers.best(answers.scores(logits)), num_truncated)

    def classify_file(
        self,
        input: PathOrStream | Sequence[PathOrStream],
        output: PathOrStream | None = None,
        *,
        input_format: str | None = None,
        column: str | None = None,
        text_pair_column: str | None = None,
        top_k: int | Literal[""] | None = "",
        function_to_apply: str | None = None,
        threshold: float | None = None,
        abstain_below: float | None = None,
        all_scores: bool = False,
        keep_columns: str | Sequence[str] | None = None,
        delimiter: str = ",",
        format: str | None = None,
        on_error: str = "stop",
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        progress: bool | None = None,
        resume: bool = True,
    ) -> FileReport:
        """Classify every record of one file or several, of any size, in order, in constant memory.

        Each record gives one line or row with its text, label and score (six decimals), as JSON Lines, CSV (the text is
        always quoted), TSV (nothing is quoted; a tab or line end in a text becomes a space), Parquet or Arrow.

        An output file appears under its name when it is complete, with the mode and owner of the file that it replaces.
        If a run is interrupted, or stops at a malformed line that is then mended, the same call continues it, and the
        file is the same to the byte as without the interruption; Parquet or Arrow that was mended starts over, with
        ``resume=False``. Until then the lines are in OUTPUT.partial, beside OUTPUT.partial.json. If this program did
        not write the files of these names, they stay, and the call fails.

        Args:
            input: a path, a pattern such as "part-*.csv", "-" for standard input, a stream, or a list of these, which
                are read one after another. A text stream is read as text, from its position on. Bytes are UTF-8, or
                UTF-16 or UTF-32 with a byte order mark, and may be compressed by gzip or zstd.
            output: a path, "-" or None for standard output, or a stream. Output to a stream is not resumed. The lines
                of a path that ends in .gz or .zst are compressed.
            input_format: "text" (one text per line), "csv", "tsv", "jsonl", "parquet" or "arrow" (Feather, too); None
                is what the suffix says, and "text" without a suffix.
            column: the column, or the key of each JSON object, that holds the text; None is the one that the model
                was trained on, where that is there and known (see ``training_columns`` of the configuration), or else
                "text", or the only column of strings, of JSON Lines if every object has it. The keys of the first
                1,000 objects of a file are its columns, of a stream those of the first.
            text_pair_column: the column of the second texts, for a model that was trained on pairs; they are written as
                text_pair. Where neither it nor ``column`` is given, it is the one that the model was trained on, too.
            top_k, function_to_apply, threshold, abstain_below: as in a call. Instead of label and score, a list of
                labels is in "labels" of each JSON object, as ``{"label", "score"}``, and elsewhere in the columns
                label_1, score_1, label_2, ..., which are null (empty) behind the last of them. A label that is None is
                null or empty, too.
            all_scores: write the score of every label as well: in "scores" of each JSON object, as
                ``{label: score}``, and elsewhere in columns score_LABEL, in the order of the model. Those of a
                regression with several targets are written without it, too, unless ``top_k`` or ``threshold`` is given.
            keep_columns: the columns that are written before the text, in this order, or "all" for every other one. A
                column with the name of a result, as "label", is written as "input_label".
            delimiter: the character between the fields of CSV; other formats take none.
            format: "json", "csv", "tsv", "parquet" or "arrow"; None is what the suffix says, and "json" without a
                suffix. Arrow to a stream is a stream of Arrow, Parquet needs a path.
            on_error: what to do at a malformed record: "stop" ends the run, "skip" leaves the record out, and "null"
                writes a record without text, label and score for it. The report counts them.
            batch_size: how many texts are classified at a time.
            threads: the number of worker threads; None is torch's own number.
            progress: whether to show a bar on standard error; None shows one if that is a terminal.
            resume: False starts over, whatever an earlier run has left.

        Raises:
            OSError: the input cannot be read, or the output cannot be written or would replace a file that this program
                did not write. This is found out before any work.
            ValueError: an unknown format or suffix; bytes that are not text; a column that does not exist; an output
                that is the input or a file of the model; a malformed record (with its line); a score that is NaN or
                infinite (with its record); an output that was begun with another input, model or options.
        """
        answers = self.answers(top_k=top_k, function_to_apply=function_to_apply, threshold=threshold,
                               abstain_below=abstain_below, all_scores=all_scores)
        return classify_file(self, input, output, input_format=input_format, column=column,
                             text_pair_column=text_pair_column, answers=answers, keep_columns=keep_columns,
                             delimiter=delimiter, format=format, on_error=on_error, batch_size=batch_size,
                             threads=threads, progress=progress, resume=resume)

    def explain(self, text: str, text_pair: str | None = None, labels: Sequence[str] | None = None) -> Explanation:
        """Which words the logits of a text, or of a pair of texts, come from.

        A logit of a DSN is a sum: that of an empty row, and a share for every token. For a head without dendrites the
        shares are read off the weights; those of dendrites and of a hidden layer are integrated gradients along the
        pooled row (Sundararajan et al. 2017), from the empty row on. The shares are not sampled, and add up to the
        difference of the logits to within 1e-6 of the sum of their magnitudes.

        Windows and a gate let tokens act on each other. Then the shares are integrated gradients along what is looked
        up for the tokens, to within 1e-3; and with windows the sum begins at the logits of a row of zeros, of as many
        tokens for which nothing but zeros is looked up.

        Beside its share each word has the number ``left_out``: by how much the logits are lower if its tokens are left
        out and those behind them move up. That is another number, because the mean is then one over fewer tokens, at
        other positions.

        ``labels`` are the labels to explain, in this order; None is all of them. Words are those of the tokenizer
        (BERT's ends one at each space and punctuation mark), with offsets in characters.

        Raises TypeError for a text that is not a str, and ValueError for a label that the model does not have, for
        logits that are NaN or infinite, for a model with BERT's encoder (``dsn=False``), and for a model with an
        adapter or hooks. Warns of a single text for a model that was trained on pairs, and of the reverse.
        """
        from .explanation import explain

        with torch_threads(1):
            return explain(self, text, text_pair, labels)

    def __repr__(self) -> str:
        config = self.config
        parameter = next(iter(self._source.state_dict().values()))
        dtype = str(parameter.dtype).removeprefix("torch.")
        form = "embeddings" if config.dsn else "encoder"
        if config.window_layers:
            form = f"{config.window_layers} layers of {config.window_dendrites} dendrites on windows"
            dtype = "bfloat16" if dtype == "bfloat16" else "float32"  # as model/inference_tables.py has it
        prepared = getattr(self._source, "_table_dtype", table_dtype_of(config))
        if config.window_layers and prepared:
            prepared = served_window_dtype(prepared, parameter.device)
        stored = str(prepared).removeprefix("torch.") if prepared else dtype
        return f"TextClassifier({len(self.labels)} labels, {form} in {stored})"
