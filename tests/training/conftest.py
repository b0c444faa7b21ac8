"""A task that is learnt in a second, and files of options."""

import numpy as np
import pytest
import yaml

from dendritic_bert.training import TrainingOptions

POSITIVE, NEGATIVE = ["charming", "wonderful", "gripping", "warm"], ["bleak", "dull", "tedious", "clumsy"]
NOUNS = ["film", "plot", "cast", "journey", "story", "score", "ending", "dialogue"]


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """A task that a bag of words can learn, in the layout of GLUE; the words of a tenth of the texts mislead."""
    folder = tmp_path_factory.mktemp("glue")
    (folder / "SST-2").mkdir()
    (folder / "STS-B").mkdir()
    rng = np.random.default_rng(0)
    for split, size in (("train", 600), ("dev", 120)):
        labels = rng.integers(0, 2, size)
        noise = rng.random(size) < 0.1
        words = [rng.choice([NEGATIVE, POSITIVE][label ^ flip]) for label, flip in zip(labels, noise)]
        texts = [f"the {rng.choice(NOUNS)} is {word} , said {rng.choice(NOUNS)}" for word in words]
        rows = "".join(f"{text}\t{label}\n" for text, label in zip(texts, labels))
        (folder / "SST-2" / f"{split}.tsv").write_text(f"sentence\tlabel\n{rows}")
        pairs = "".join(f"{text}\tthe {rng.choice(NOUNS)}\t{1 + 3 * label}\n" for text, label in zip(texts, labels))
        (folder / "STS-B" / f"{split}.tsv").write_text(f"sentence1\tsentence2\tscore\n{pairs}")
    return str(folder)


@pytest.fixture
def options(glue, tmp_path):
    """Makes the options of a training of a second; keyword arguments override them."""
    def make(**changes) -> TrainingOptions:
        defaults = {"dsn": True, "data_dir": glue, "output_dir": str(tmp_path / "out"), "lr": 0.02, "batch_size": 60}
        return TrainingOptions(**defaults | changes)

    return make


@pytest.fixture
def space(tmp_path):
    """Writes a sweep file with the parameters that it is given, and returns its path."""
    def write(**parameters) -> str:
        (tmp_path / "space.yaml").write_text(yaml.safe_dump({"parameters": parameters}))
        return str(tmp_path / "space.yaml")

    return write
