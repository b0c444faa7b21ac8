"""The model card of a model of one's own rows: the data, how it was made, how it scores, and how to load it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from ..model.files import CARD
from .evaluation import Evaluation, scores
from .evaluation_report import draw_pictures, report_sections
from .markdown import markdown_table, table_cell, without_html
from .model_card import base_model, how_it_was_made, mean_of_seeds, scored_epoch, seeds_table, title, what_it_is
from .options import TrainingOptions

if TYPE_CHECKING:
    from ..datasets.own_rows import OwnRows
    from ..model.configuration import DendriticBertConfig

MOST_LISTED = 200  # labels whose training rows are listed; of more, the most and the least frequent are named
USE = """\
## How to use it

With this package, from Python or a shell:

```python
from dendritic_bert import TextClassifier

classifier = TextClassifier.from_pretrained("{folder}")
classifier({call})
```

```
dendritic-bert classify --model {folder} --file {file}{columns}
```

With transformers alone, by the file of plain PyTorch that lies beside the weights:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForSequenceClassification.from_pretrained("{folder}", trust_remote_code=True)
model(**tokenizer({texts}, return_tensors="pt")).logits
```
"""


def write_own_data_card(
    folder: Path, options: TrainingOptions, results: dict[str, Any], config: DendriticBertConfig,
    evaluation: Evaluation, benchmark: OwnRows,
) -> None:
    """Write the card, and the pictures that it shows, to ``folder``.

    Args:
        folder: the folder of the weights.
        options: those of the training.
        results: what ``trainer.train`` returns; its ``baseline``, if it has one, is that of ``tfidf_baseline``.
        config: that of the model.
        evaluation: the answers of the model, as it is written, to the dev rows.
        benchmark: the rows.
    """
    draw_pictures(folder, evaluation)
    parts = [
        "---", _metadata(options, results, evaluation), "---", "", f"# {title(config)} for {options.task}", "",
        f"Made by dendritic-bert. {what_it_is(config)}{_outputs(evaluation)}", "",
        _how_to_use(options, benchmark, evaluation.temperature),
        "## Data", "", *_data(benchmark), "",
        "## How it was made", "", *how_it_was_made(options, results, config), "",
        "## How it scores", "",
        f"On the {results['num_dev']:,} dev row{'s' * (results['num_dev'] != 1)}, after {scored_epoch(options)}, with "
        f"the weights as they are written, those of the first seed, {options.seeds[0]}. "
        f"{_what_the_dev_rows_decided(options, evaluation)}", "",
        *report_sections(evaluation, results.get("baseline")), *_seeds(results, evaluation.temperature),
    ]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")


def _metadata(options: TrainingOptions, results: dict[str, Any], evaluation: Evaluation) -> str:
    found = scores(*evaluation[:2], evaluation.problem_type, evaluation.temperature)
    found.pop("standard_error", None)
    return ModelCardData(
        library_name="dendritic-bert", pipeline_tag="text-classification", metrics=list(found),
        base_model=base_model(options), model_name=f"dendritic-bert-{options.task}",
        eval_results=[
            EvalResult(task_type="text-classification", dataset_type="own-rows", dataset_name=results["source"],
                       dataset_split="validation", metric_type=metric, metric_value=value)
            for metric, value in found.items()
        ],
    ).to_yaml()


def _outputs(evaluation: Evaluation) -> str:
    count = len(evaluation.label_names)
    if evaluation.problem_type == "regression":
        return "One output: a regression." if count == 1 else f"{count} outputs: a regression."
    return f"{count} labels" + (", of which a text may have several." if evaluation.labels.ndim == 2 else ".")


def _how_to_use(options: TrainingOptions, benchmark: OwnRows, temperature: float) -> str:
    text, pair, _ = benchmark.columns
    delimiter = "tab" if options.delimiter == "\t" else options.delimiter
    flags = {"input-format": options.input_format, "delimiter": delimiter}
    columns = "".join(f" --{name} {shlex.quote(value)}" for name, value in flags.items() if value)
    columns += f" --column {shlex.quote(text)}" if text != "text" else ""
    call, texts = '"a text"', '["a text"]'
    if pair is not None:
        columns += f" --text-pair-column {shlex.quote(pair)}"
        call, texts = '{"text": "a text", "text_pair": "its pair"}', '["a text"], ["its pair"]'
    file = Path(options.train_file[0]).name if options.train_file else "rows.csv"
    use = USE.format(folder=options.output_dir, call=call, texts=texts, columns=columns, file=shlex.quote(file))
    if temperature != 1:
        use += (f"\nThese are the logits before the temperature: divided by {temperature:.4g} they give the scores of "
                "this package.\n")
    return use


def _data(benchmark: OwnRows) -> list[str]:
    report = benchmark.report
    assert report is not None, "there are training rows"
    lines = [f"- {without_html(line)}" for line in report.lines()]
    counts = sorted(report.class_counts.items(), key=lambda item: -item[1])
    if len(counts) > MOST_LISTED:
        lines.append(f"- {len(counts):,} labels, with {counts[-1][1]:,} to {counts[0][1]:,} training rows each")
    elif counts:
        lines += ["", markdown_table(["label", "training rows"],
                                     [[table_cell(name), f"{count:,}"] for name, count in counts])]
    return lines


def _what_the_dev_rows_decided(options: Any, evaluation: Evaluation) -> str:
    """What makes the scores better than they would be on other rows."""
    uses = [*(["the epoch that was kept"] if options.early_stopping else []),
            *(["the temperature"] if evaluation.temperature != 1 else [])]
    return f"They decided on {' and '.join(uses)}, too: expect slightly less elsewhere." if uses else ""


def _seeds(results: dict[str, Any], temperature: float) -> list[str]:
    """All runs, where there are several."""
    if results["sd"] is None:
        return []
    return ["### Seeds\n", seeds_table(results),
            *(["Those that depend on probabilities are without the temperature.\n"] if temperature != 1 else []),
            mean_of_seeds(results) + "\n"]
