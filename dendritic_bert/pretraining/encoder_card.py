"""The model card of a pretrained encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from ..training.model_card import how_it_was_made, licence_of, seeds_table, what_it_is
from .options import PretrainingOptions

if TYPE_CHECKING:
    from ..model.configuration import DendriticBertConfig

USE = """\
```python
from dendritic_bert import TextEncoder

encoder = TextEncoder.from_pretrained("{folder}")
encoder.encode(["a charming and often affecting journey"])
```

```
dendritic-bert train --model_name {folder} --train_file reviews.csv
```
"""


def write_encoder_card(path: Path, options: PretrainingOptions, results: dict[str, Any],
                       config: DendriticBertConfig, pooling: str) -> None:
    """Write the card to ``path``; ``results`` are those of ``trainer.train``, ``pooling`` is the teacher's."""
    run = results["runs"][0]
    licence = licence_of(str(options.teacher))
    metadata = ModelCardData(library_name="dendritic-bert", pipeline_tag="sentence-similarity")
    path.write_text("\n".join([
        "---", metadata.to_yaml(), "---", "",
        "# A sentence encoder", "",
        "Made by dendritic-bert. " + what_it_is(config) + f"Its {config.pooled_size} pooled numbers, projected to "
        f"{config.num_labels}, are near the teacher's embedding of a text"
        f"{', on so many of its principal axes' if options.embedding_size else ''}.", "",
        USE.format(folder=options.output_dir),
        "## How it was made", "",
        *how_it_was_made(options, results, config), "",
        f"The teacher is `{options.teacher}`, pooled by {pooling}, licence: {licence or 'not stated in its card'}. The "
        f"texts are those of {results['source']}, licence: {options.text_licence or 'not stated'}; they have no "
        "labels. Both licences may bind what is made from them.", "",
        "## How near it is to its teacher", "",
        f"On {results['num_dev']:,} texts, spread evenly over the files, that it was not trained on, the mean cosine "
        f"between its embedding and the teacher's is **{run['cosine']:.4f}**.", "",
        *([] if results["sd"] is None else [seeds_table(results)]), "",
    ]), encoding="utf-8")
