"""Small files in the layout of the GLUE download."""

import numpy as np

from dendritic_bert.datasets.glue_tasks import TASKS

NAMES = ["fine", "broken", "odd", "plain", "sharp"]


def write_task(folder, name: str, sizes: dict[str, int]) -> None:
    """Write files of the task in the layout of the GLUE download; one word of the last text decides the label."""
    task = TASKS[name]
    spellings = task.spellings or ("0", "1") if task.labels else ("0.000", "4.500")
    rng = np.random.default_rng(len(name))
    for split, size in sizes.items():
        rows = []
        for _ in range(size):
            label = rng.integers(0, len(spellings))
            last = f"the {rng.choice(NAMES)} word is {['good', 'bad', 'grey'][label]}"
            rows.append([f"some {rng.choice(NAMES)} text", last][-len(task.texts):] + [spellings[label]])
        columns = [*task.texts, task.label]
        if isinstance(task.label, int):
            lines = ["\t".join(["src", label, "", text]) for text, label in rows]
        else:
            lines = ["\t".join(["index", *map(str, columns)])]
            lines += ["\t".join([str(number), *row]) for number, row in enumerate(rows)]
        (folder / task.folder).mkdir(exist_ok=True)
        (folder / task.folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
