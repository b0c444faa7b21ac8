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


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """CSV files of one's own: reviews.csv with text, tone (three classes) and stars (a number), and dev.csv."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(1)
    words = {"bad": NEGATIVE, "good": POSITIVE, "mixed": ["even", "uneven", "fair", "so-so"]}
    for name, size in (("reviews", 150), ("dev", 45)):
        lines = ["text,tone,stars"]
        for number in range(size):
            tone = ["bad", "good", "mixed"][number % 3]
            text = f"the {rng.choice(NOUNS)} is {rng.choice(words[tone])} , said {rng.choice(NOUNS)} {number}"
            lines.append(f'"{text}",{tone},{[1.25, 4.5, 3.0][number % 3]}')
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def own_options(reviews, tmp_path):
    """Makes the options of a training of a second on reviews.csv; keyword arguments override them."""
    def make(**changes) -> TrainingOptions:
        defaults = {"train_file": str(reviews / "reviews.csv"), "label_column": "tone", "epochs": 8, "batch_size": 15,
                    "hidden_size": 8, "vocab_size": 400, "baseline": False, "output_dir": str(tmp_path / "out")}
        return TrainingOptions(**defaults | changes)

    return make
