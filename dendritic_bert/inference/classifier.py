"""Classification of texts: lists, streams, and files of any size."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch

from .. import embedded_model
from ..model.dsn_checkpoint import DsnCheckpoint, table_dtype_of
from .file_classification import FileReport, classify_file
from .scores import Answers, NonFiniteScores, Prediction, label_names
from .streams import PathOrStream
from .texts import check_texts, split_pairs
from .threads import check_positive, map_in_order, thread_count, without_lost_threads
from .tokenization import PackedBatch, PackedTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..model.configuration import DendriticBertConfig
    from .explanation import Explanation

# The part of a batch that Python itself does runs on one thread at a time. With 1024 texts in a batch the threads would
# take turns four times as often, and a single thread would spend 13 % of its time on calls.
BATCH_SIZE = 4096
ENCODER_ROWS = 128  # rows that BERT's encoder takes at a time, each padded to the longest of them
NO_OPTIONS = {"top_k": "", "function_to_apply": None, "threshold": None, "abstain_below": None, "all_scores": False}
# Fields of a configuration that say where a checkpoint came from, not what it computes.
INCIDENTAL = {"_name_or_path", "transformers_version", "architectures", "dtype", "auto_map"}
Result = TypeVar("Result")
_LOCK = threading.Lock()  # guards num_truncated, and the making of the model, when calls overlap


class TextClassifier:
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

    def __init__(self, model: PreTrainedModel | DsnCheckpoint, tokenizer: Any):
        self._source: Any = model if isinstance(model, DsnCheckpoint) else _prepared(model.eval())
        self.tokenizer = tokenizer if isinstance(tokenizer, PackedTokenizer) else PackedTokenizer(tokenizer)
        config = model.config
        vocab_size = self.tokenizer.backend.get_vocab_size()
        if vocab_size > config.vocab_size:
            raise ValueError(f"the tokenizer has {vocab_size} ids, the model embeds {config.vocab_size}: they do not "
                             "belong together, pass the tokenizer that the model was trained with.")
        longest = min(config.longest_row, self.tokenizer.model_max_length)
        self.max_length = None if longest == math.inf else int(longest)
        self.labels = label_names(config.id2label, self._source.num_labels)
        self.num_truncated = 0
        self._answers = self._make_answers({})

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
    ) -> TextClassifier:
        """Load the model and the tokenizer of a folder or a hub id; None is the embedded model, and "tiny" the smaller
        one that comes with the package too.

        ``device`` is where the model computes, such as "cuda"; None is the CPU. ``revision`` is the branch, tag or
        commit of a hub id; None is its main branch. Raises OSError if there is no such folder, id or revision, and
        ValueError if there is no such device.
        """
        name = embedded_model.find_model(name_or_path)
        try:
            where = torch.empty(0, device=device or "cpu").device
        except Exception as error:  # torch raises RuntimeError, AssertionError and NotImplementedError, of many lines
            raise ValueError(f"device is {str(device)!r}, on which torch cannot compute here "
                             f"({str(error).strip().splitlines()[0].rstrip('.')}): pass another, or 'cpu'.") from error
        model: Any = DsnCheckpoint.find(name) if where.type == "cpu" and revision is None else None
        if model is None:
            from ..model.modeling import DendriticBertForSequenceClassification

            which = {} if revision is None else {"revision": revision}
            model = DendriticBertForSequenceClassification.from_pretrained(name, **which).to(where)
        return cls(model, PackedTokenizer.from_pretrained(name, revision=revision))

    @property
    def model(self) -> Any:
        """The model. A checkpoint's is made now, and from now on the classifier calls it."""
        with _LOCK:
            if isinstance(self._source, DsnCheckpoint):
                self._source = _prepared(self._source.to_model())
            return self._source

    @property
    def config(self) -> DendriticBertConfig:
        """The configuration of the model."""
        return self._source.config

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"num_truncated": 0}

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
        that is NaN or infinite, naming the text.
        """
        answers = self.answers(top_k=top_k, function_to_apply=function_to_apply, threshold=threshold,
                               abstain_below=abstain_below)
        first, second = split_pairs(texts)
        results: list[Any] = []
        for _, said in self._map_logits(answers.dicts, first, second, batch_size, threads):
            results += said
        if isinstance(texts, Mapping) or (isinstance(texts, str) and answers.is_list):
            return results[0]
        return results

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
        same to the bit for any number of threads. The other arguments and the errors are those of a call.
        """
        answers = self.answers(function_to_apply=function_to_apply)
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

    def answers(self, **options: Any) -> Answers:
        """What this model says of a text; ``options`` are those of ``Answers``."""
        return self._answers if options.items() <= NO_OPTIONS.items() else self._make_answers(options)

    def _make_answers(self, options: dict[str, Any]) -> Answers:
        config = self.config
        return Answers(self.labels, config.problem_type, getattr(config, "temperature", 1.0), **options)

    def _map_logits(
        self, function: Callable[[np.ndarray], Result], first: list[str], second: list[str] | None, batch_size: int,
        threads: int | None,
    ) -> Iterator[tuple[int, Result]]:
        """``function`` of the logits of each batch of texts, with the number of texts before it, in order."""
        threads = thread_count(threads)
        check_positive("batch_size", batch_size)

        def classify(start: int) -> tuple[Result, int]:
            batch = slice(start, start + batch_size)
            try:
                logits, num_truncated = self.logits(first[batch], None if second is None else second[batch])
            except NonFiniteScores as error:
                row = start + error.row
                raise NonFiniteScores(row, f"texts[{row}]", error.why) from None
            return function(logits), num_truncated

        starts = range(0, len(first), batch_size)
        for start, (result, num_truncated) in map_in_order(classify, starts, threads, len(starts)):
            self.count_truncated(num_truncated)
            yield start, result

    def predict(self, texts: list[str], text_pairs: list[str] | None = None) -> Prediction:
        """The best label of each text, in one batch on the calling thread; ``num_truncated`` stays as it is."""
        answers = self.answers()
        logits, num_truncated = self.logits(texts, text_pairs)
        return Prediction(*answers.best(answers.scores(logits)), num_truncated)

    @torch.no_grad()
    def logits(self, texts: list[str], text_pairs: list[str] | None = None) -> tuple[np.ndarray, int]:
        """The logits ``[B, C]`` float32 of texts or pairs, in one batch on the calling thread, and how many were cut.

        ``num_truncated`` stays as it is. Raises NonFiniteScores if a logit is NaN or infinite, and ValueError for pairs
        if the model has no embeddings of their token types.
        """
        if text_pairs is None:
            batch = self.tokenizer(texts, self.max_length)
        else:
            batch = self.tokenizer.pairs(texts, text_pairs, self.max_length)
            types, num_types = batch.token_type_ids, self.config.type_vocab_size
            if types is not None and types.max(initial=0) >= num_types:
                raise ValueError(f"the tokenizer gives a pair token types up to {types.max()}, the model embeds "
                                 f"{num_types}: classify pairs with a model that was trained on pairs.")
        logits = without_lost_threads(self._logits, batch).float().cpu().numpy()
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise NonFiniteScores(row, f"texts[{row}]", self._why_not_finite())
        return logits, batch.num_truncated

    def count_truncated(self, number: int) -> None:
        """Add to ``num_truncated``; calls may overlap."""
        with _LOCK:
            self.num_truncated += number

    def _why_not_finite(self) -> str:
        bad = next((name for name, values in self._source.state_dict().items() if not values.isfinite().all()), None)
        return "its weights are too large" if bad is None else f"its {bad} holds NaN or infinite values"

    def _logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits ``[B, C]`` of a batch."""
        source, types = self._source, batch.token_type_ids
        input_ids, cu_seqlens = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.cu_seqlens)
        token_type_ids = None if types is None else torch.from_numpy(types)
        if isinstance(source, DsnCheckpoint):
            return source.logits(input_ids, cu_seqlens, token_type_ids)
        if not source.config.dsn:
            return self._encoder_logits(batch)
        device = source.get_input_embeddings().weight.device  # which is faster than source.device
        return source(input_ids=input_ids.to(device), cu_seqlens=cu_seqlens.to(device), return_dict=False,
                      token_type_ids=None if token_type_ids is None else token_type_ids.to(device))[0]

    def _encoder_logits(self, batch: PackedBatch) -> torch.Tensor:
        """The logits of a model with BERT's encoder (``dsn=False``), which needs padded rows."""
        device, logits = self._source.device, []
        types = batch.token_type_ids
        for first in range(0, len(batch.cu_seqlens) - 1, ENCODER_ROWS):
            bounds = batch.cu_seqlens[first:first + ENCODER_ROWS + 1]
            lengths = np.diff(bounds)
            mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
            rows = {"attention_mask": mask.astype(np.int64)}
            for name, values in (("input_ids", batch.input_ids), ("token_type_ids", types)):
                if values is not None:
                    rows[name] = np.zeros(mask.shape, np.int64)
                    rows[name][mask] = values[bounds[0]:bounds[-1]]
            logits.append(self._source(**{name: torch.from_numpy(row).to(device) for name, row in rows.items()}).logits)
        return torch.cat(logits)

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
        If a run is interrupted, or stops at a malformed record that is then mended, the same call continues it, and the
        file is the same to the byte as without the interruption. Until then the lines are in OUTPUT.partial, beside
        OUTPUT.partial.json. If this program did not write the files of these names, they stay, and the call fails.

        Args:
            input: a path, a pattern such as "part-*.csv", "-" for standard input, a stream, or a list of these, which
                are read one after another. A text stream is read as text, from its position on. Bytes are UTF-8, or
                UTF-16 or UTF-32 with a byte order mark, and may be compressed by gzip or zstd.
            output: a path, "-" or None for standard output, or a stream. Output to a stream is not resumed. The lines
                of a path that ends in .gz or .zst are compressed.
            input_format: "text" (one text per line), "csv", "tsv", "jsonl", "parquet" or "arrow" (Feather, too); None
                is what the suffix says, and "text" without a suffix.
            column: the column, or the key of each JSON object, that holds the text; None is "text", or where there is
                none of this name the only column of strings.
            text_pair_column: the column of the second texts, for a model that was trained on pairs; they are written as
                text_pair.
            top_k, function_to_apply, threshold, abstain_below: as in a call. Instead of label and score, a list of
                labels is in "labels" of each JSON object, as ``{"label", "score"}``, and elsewhere in the columns
                label_1, score_1, label_2, ..., which are null (empty) behind the last of them. A label that is None is
                null or empty, too.
            all_scores: write the score of every label as well: in "scores" of each JSON object, as
                ``{label: score}``, and elsewhere in columns score_LABEL, in the order of the model.
            keep_columns: the columns that are written before the text, in this order, or "all" for every other one. A
                column with the name of a result, as "label", is written as "input_label".
            delimiter: the character between the fields of CSV.
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
        adapter or hooks.
        """
        from .explanation import explain

        return without_lost_threads(lambda _: explain(self, text, text_pair, labels), None)

    def __repr__(self) -> str:
        config = self.config
        dtype = str(next(iter(self._source.state_dict().values())).dtype).removeprefix("torch.")
        form = "embeddings" if config.dsn else "encoder"
        if config.window_layers:
            form = f"{config.window_layers} layers of {config.window_dendrites} dendrites on windows"
            dtype = "bfloat16" if dtype == "bfloat16" else "float32"  # as model/inference_tables.py has it
        return f"TextClassifier({len(self.labels)} labels, {form} in {config.table_dtype or dtype})"

    def fingerprint(self) -> str:
        """A digest of parameters, configuration and tokenizer, but not of where they are stored or what saved them."""
        tokenizer = self.tokenizer
        digest = hashlib.sha256(tokenizer.backend.to_str().encode())
        settings = (tokenizer.backend.encode_special_tokens, tokenizer.truncation_side, self.max_length)
        digest.update(repr(settings).encode())
        config = self.config.to_dict().items()
        digest.update(repr(sorted((name, str(value)) for name, value in config if name not in INCIDENTAL)).encode())
        for name, tensor in sorted(self._source.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def _prepared(model: Any) -> Any:
    """The model, which computes as its configuration says that a classifier does."""
    dtype = table_dtype_of(model.config)
    return model if dtype is None else model.prepare(dtype)
