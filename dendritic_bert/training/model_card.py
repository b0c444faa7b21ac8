"""The model card that is written beside trained weights: what the model is, how it was made, how it scores."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import torch
import transformers
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..kernels import backends
from ..model.files import CARD
from .command_line import command_line
from .markdown import markdown_table
from .options import TrainingOptions

if TYPE_CHECKING:
    from ..model.configuration import DendriticBertConfig

USE = {"glue": """\
```python
from dendritic_bert import TextClassifier

classifier = TextClassifier.from_pretrained("{folder}")
classifier(["a charming and often affecting journey"])
```
""", "squad": """\
```python
import dendritic_bert
from transformers import AutoModelForQuestionAnswering

model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
```
"""}
DATASETS = {"glue": ("nyu-mll/glue", "GLUE"), "squad": ("rajpurkar/squad", "SQuAD")}


def write_model_card(
    path: Path, options: TrainingOptions, results: dict[str, Any], config: DendriticBertConfig
) -> None:
    """Write the card of a model to ``path``; ``results`` are those of ``trainer.train``."""
    is_regression = config.problem_type == "regression"
    is_answering = options.benchmark == "squad"
    labels = ", ".join(f"`{label}`" for _, label in sorted((config.id2label or {}).items()))
    path.write_text("\n".join([
        "---", _metadata(options, results), "---", "",
        f"# {title(config)} for {options.task}", "",
        "Made by dendritic-bert. " + what_it_is(config, is_answering)
        + ("Two outputs per token: the start and the end of an answer." if is_answering else
           "One output: a regression." if is_regression else f"Labels: {labels}."), "",
        USE[options.benchmark].format(folder=options.output_dir),
        "## How it was made", "",
        *how_it_was_made(options, results, config), "",
        "## How it scores", "",
        f"On the whole dev set ({results['num_dev']:,} rows), after {scored_epoch(options)}, with the weights as they "
        f"are written. The weights here are those of the first seed, {options.seeds[0]}.", "",
        *_table(results), "",
    ]), encoding="utf-8")


def title(config: DendriticBertConfig) -> str:
    """What kind of model it is, in three words or a few more."""
    return "A Dendritic Semantic Network (DSN)" if config.dsn else "A BERT with a dendritic head"


def scored_epoch(options: TrainingOptions) -> str:
    """The epoch whose weights are kept, in words."""
    return "the epoch of the lowest dev loss" if options.early_stopping else "the last epoch"


def how_it_was_made(options: TrainingOptions, results: dict[str, Any], config: DendriticBertConfig) -> list[str]:
    """The lines on data, start, size, versions, and the command."""
    parts = results["live_parameters"]
    between = ("windows and gate", "windows") if parts["windows"] else ("encoder", "encoder")
    windows = (f", {config.window_layers} layers of {config.window_dendrites} dendrites on windows of "
               f"{2 * config.window_radius + 1} tokens" if config.window_layers else "")
    truncated = f", {results['num_truncated']:,} of them cut to {options.max_length} tokens"
    return [
        f"- Data: {results['source']}, {results['num_train']:,} rows"
        + (truncated if results["num_truncated"] else "") + ".",
        f"- Started from {options.start}, trained for {'at most ' * options.early_stopping}{options.epochs} epochs; "
        f"vocabulary of {config.vocab_size:,}, "
        f"hidden size {config.hidden_size}{windows}, {config.num_dendrites} dendrites for each "
        f"{'output' if options.benchmark == 'squad' or config.head_hidden else 'label'}"
        + (f", {config.head_hidden} hidden units in the head" if config.head_hidden else "") + ".",
        *(f"- {note}" for note in options.notes()),
        *([] if results.get("teacher") is None else [
            f"- The teacher's {results['metric'].replace('_', ' ')} on the dev rows: {results['teacher']:.4f}."]),
        f"- Live parameters: **{parts['all']:,}** ({parts['embeddings']:,} in the embeddings, "
        f"{parts[between[1]]:,} in the {between[0]}, {parts['head']:,} in the head), written as {options.save_dtype}.",
        f"- Made in {results['seconds']:.0f} s (torch threads: {torch.get_num_threads()}) with {_versions()}.", "",
        "```", shlex.join(command_line(options)), "```",
    ]


def what_it_is(config: DendriticBertConfig, is_answering: bool = False) -> str:
    """What the model can tell apart, in a sentence; nothing of a model with an encoder."""
    if not config.dsn:
        return ""
    head = f"{'dendritic' if config.num_dendrites else 'linear'} head"
    if is_answering:
        return (f"BERT's embeddings and LayerNorm under a {head} on every token; there is no encoder, so a question "
                "cannot be compared with its passage. ")
    norm = ", LayerNorm" if config.embedding_norm == "layer_norm" else ""
    pooling = "a gated mean" if config.pooling == "gated_mean" else "mean pooling"
    if config.window_layers:
        sees = 2 * (2**config.window_layers - 1) * config.window_radius + 1
        return (f"Word embeddings{norm}, dendrites that see windows of up to {sees} tokens, and {pooling} under a "
                f"{head}; there is no encoder. ")
    return (f"BERT's embeddings{norm} and {pooling} under a {head}; there is no encoder, so the order of words hardly "
            "counts. ")


def base_model(options: TrainingOptions) -> str | None:
    """The hub id of the model that training started from; None for a folder and for random numbers."""
    is_on_hub = options.checkpoint is not None and not Path(options.checkpoint).exists()
    return options.model_name if is_on_hub else None


def licence_of(model: str) -> str | None:
    """The licence that the card in a model's folder states, or the card of a hub id; None if there is none."""
    try:
        if Path(model).is_dir():
            card = Path(model) / CARD
            return ModelCard.load(card).data.license if card.is_file() else None
        return ModelCard.load(model).data.license
    except (OSError, ValueError):  # also where the hub cannot be reached
        return None


def metric_names(results: dict[str, Any]) -> list[str]:
    """The metrics of the runs in the results of ``trainer.train``."""
    return [name for name in results["runs"][0] if name not in ("seed", "seconds", "num_dendrites")
            and not name.startswith("standard_error")]


def seeds_table(results: dict[str, Any]) -> str:
    """The metrics of every run."""
    names = metric_names(results)
    return markdown_table(["seed", *(name.replace("_", " ") for name in names), "seconds"],
                          [[str(run["seed"]), *(f"{run[name]:.4f}" for name in names), f"{run['seconds']:.0f}"]
                           for run in results["runs"]])


def mean_of_seeds(results: dict[str, Any]) -> str:
    """The mean of the main metric, where there are several runs."""
    return (f"Mean {results['metric'].replace('_', ' ')} over {len(results['runs'])} seeds: **{results['mean']:.4f}**, "
            f"standard deviation {results['sd']:.4f}.")


def _metadata(options: TrainingOptions, results: dict[str, Any]) -> str:
    run = {metric: results["runs"][0][metric] for metric in metric_names(results)}
    dataset, dataset_name = DATASETS[options.benchmark]
    task_type = "question-answering" if options.benchmark == "squad" else "text-classification"
    return ModelCardData(
        language="en", library_name="dendritic-bert", pipeline_tag=task_type, datasets=[dataset],
        metrics=list(run), base_model=base_model(options), model_name=f"dendritic-bert-{options.task}",
        eval_results=[
            EvalResult(task_type=task_type, dataset_type=dataset, dataset_name=dataset_name,
                       dataset_config=options.task, dataset_split="validation", metric_type=metric, metric_value=value)
            for metric, value in run.items()
        ],
    ).to_yaml()


def _versions() -> str:
    from .. import __version__

    return (f"dendritic-bert {__version__} (backend {backends.choose(None, 'embed_pool', 'cpu', torch.float32)}), "
            f"torch {torch.__version__}, transformers {transformers.__version__}, tokenizers "
            f"{tokenizers.__version__}, Python {platform.python_version()} on {platform.machine()}")


def _table(results: dict[str, Any]) -> list[str]:
    lines = [seeds_table(results)]
    if results["sd"] is not None:
        lines.append(mean_of_seeds(results))
    if results["majority"] is not None:
        lines.append(f"The most frequent label makes up {results['majority']:.4f} of the rows.")
    if results["task"] == "sst2":
        lines.append("The default settings of training were chosen by their accuracy on this dev set: expect slightly "
                     "less elsewhere.")
    if "standard_error" in results["runs"][0]:
        lines.append(f"One standard error of an accuracy on {results['num_dev']:,} rows is "
                     f"{results['runs'][0]['standard_error']:.4f}.")
    return lines
