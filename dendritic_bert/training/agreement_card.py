"""The model card of a student that learnt from a teacher and texts without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from .distillation_options import DistillationOptions
from .model_card import USE, how_it_was_made, licence_of, mean_of_seeds, seeds_table, title, what_it_is

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
        *([] if results["sd"] is None else [seeds_table(results), mean_of_seeds(results)]), "",
    ]), encoding="utf-8")
