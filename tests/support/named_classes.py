"""A table of the library ``datasets`` whose classes have names."""

import datasets

TABLE = datasets.Dataset.from_dict(
    {"sentence": [f"a text of row {number}" for number in range(40)], "label": [0, 1, 1, 0] * 10,
     "tags": [[0], [0, 1], [], [1]] * 10},
    features=datasets.Features({"sentence": datasets.Value("string"),
                                "label": datasets.ClassLabel(names=["no", "a yes"]),
                                "tags": datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))}))
