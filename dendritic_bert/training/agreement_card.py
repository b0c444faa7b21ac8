"""The model card of a student that learnt from a teacher and texts without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from .distillation_options import DistillationOptions
from .markdown import markdown_table
from .model_card import USE, how_it_was_made, metric_names, title, what_it_is

if TYPE_CHECKING:
    from ..model.configuration import DendriticBertConfig

SHOWN_LABELS = 20


def write_agreement_card(path: Path, options: DistillationOptions, results: dict[str, Any],
                         config: DendriticBertConfig) -> None:
    """Write the card to ``path``; ``results`` are those of ``trainer.train``, whose runs have an agreement."""
    names = [str(name) for _, name in sorted((config.id2label or {}).items())]
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN_LABELS])
    more = f" and {len(names) - SHOWN_LABELS} more" if len(names) > SHOWN_LABELS else ""
    run = results["runs"][0]
    licence = licence_of(str(options.teacher))
    metadata = ModelCardData(library_name="dendritic-bert", pipeline_tag="text-classification")
    path.write_text("\n".join([
        "---", metadata.to_yaml(), "---", "",
        f"# {title(config)} that answers as {Path(str(options.teacher)).name} does", "",
        "Made by dendritic-bert. " + what_it_is(config) + f"Labels: {shown}{more}.", "",
        USE["glue"].format(folder=options.output_dir),
        "## How it was made", "",
        *how_it_was_made(options, results, config), "",
        f"The teacher is `{options.teacher}`, licence: {licence or 'not stated in its card'}. The texts are those of "
        f"{results['source']}, licence: {options.text_licence or 'not stated'}. Nobody labelled them: the student "
        "learnt the teacher's probabilities, its mistakes too. Both licences may bind what is made from them.", "",
        "## How often it agrees with its teacher", "",
        f"On {results['num_dev']:,} texts, drawn at random, that the student was not trained on and whose labels it "
        f"was not told, it gives the teacher's label for **{100 * run['agreement']:.1f} %** (standard error "
        f"{100 * run['standard_error']:.1f}). The label that the teacher gives most often makes up "
        f"{100 * results['majority']:.1f} %. How often either is right is not known.", "",
        *_seeds(results), "",
    ]), encoding="utf-8")


def licence_of(model: str) -> str | None:
    """The licence that the card in a model's folder states, or the card of a hub id; None if there is none."""
    try:
        if Path(model).is_dir():
            card = Path(model) / "README.md"
            return ModelCard.load(card).data.license if card.is_file() else None
        return ModelCard.load(model).data.license
    except (OSError, ValueError):  # also where the hub cannot be reached
        return None


def _seeds(results: dict[str, Any]) -> list[str]:
    if results["sd"] is None:
        return []
    names = metric_names(results)
    table = markdown_table(["seed", *names, "seconds"], [
        [str(run["seed"]), *(f"{run[name]:.4f}" for name in names), f"{run['seconds']:.0f}"]
        for run in results["runs"]])
    return [table, f"Mean agreement over {len(results['runs'])} seeds: **{results['mean']:.4f}**, standard deviation "
                   f"{results['sd']:.4f}."]
