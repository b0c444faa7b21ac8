"""What few rows are worth: the pretrained encoder beside random numbers, TF-IDF, fastText and frozen embeddings.

    python bench/accuracy/few_rows.py --own_dir own --data_dir glue --teacher all-MiniLM-L6-v2

Of three tables (150 intents, news in two columns, ironic tweets) 8, 32 and 128 rows of each class are drawn, five times
each, and all rows are taken once; accuracy is on all test rows, which decide nothing. Each result is a row of
few_rows.csv, from which an interrupted run continues. Writes few_rows.md and few_rows.png beside it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import plots
from own_rows import OWN_TABLES, Table, read_table, table_parser
from result_files import made_by, read_csv, write_csv

from dendritic_bert import DendriticBertClassifier
from dendritic_bert.pretraining.sentence_encoder import SentenceEncoder
from dendritic_bert.training.baseline import tfidf_baseline
from dendritic_bert.training.markdown import markdown_table

ALL = 0  # in place of a number of rows
ROWS = (8, 32, 128, ALL)  # of each class
DRAWS = 5
INVERSE_REGULARISATION = 10.0  # of the logistic regression on embeddings of length 1
FASTTEXT = {"wordNgrams": 2, "lr": 0.5, "epoch": 25, "thread": 1, "verbose": 0}
FASTTEXT_STEPS = 50_000  # rows times epochs at least, without which fastText hardly leaves 0 on few rows
ENCODER, RANDOM, TFIDF, WORDS, FROZEN = NAMES = (
    "pretrained encoder", "random numbers", "TF-IDF, logistic regression", "fastText", "frozen all-MiniLM-L6-v2")
Rows = tuple[list[tuple[str, ...]], np.ndarray]  # n texts or pairs, and their classes
Method = Callable[[Rows, Rows, int], float]  # training rows, test rows, seed -> accuracy


def draw_rows(labels: np.ndarray, num_rows: int, seed: int) -> np.ndarray:
    """The places of at most ``num_rows`` rows of each class, in random order; all of them for ``ALL``."""
    order = np.random.default_rng(seed).permutation(len(labels))
    if num_rows == ALL:
        return order
    return np.random.default_rng(seed).permutation(np.concatenate(
        [order[labels[order] == number][:num_rows] for number in np.unique(labels)]))


def train_ours(train: Rows, test: Rows, seed: int, **options: Any) -> float:
    """The defaults of the package, with ``options``."""
    columns = [[row[0] for row in rows] if len(rows[0]) == 1 else rows for rows, _ in (train, test)]
    model = DendriticBertClassifier(random_state=seed, **options).fit(columns[0], train[1])
    return float((model.predict(columns[1]) == test[1]).mean())


def train_tfidf(train: Rows, test: Rows, seed: int) -> float:
    """The baseline that ``dendritic-bert train`` puts beside a model."""
    return tfidf_baseline(*train, *test, "single_label_classification", seed)["accuracy"]


def train_fasttext(train: Rows, test: Rows, seed: int) -> float:
    """fastText's supervised classifier on words and pairs of words."""
    import fasttext

    lines = [[" ".join(" ".join(row).split()).lower() for row in rows] for rows, _ in (train, test)]
    epochs = max(int(FASTTEXT["epoch"]), FASTTEXT_STEPS // len(train[1]))
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(f"__label__{number} {line}\n" for number, line in zip(train[1], lines[0]))
        file.flush()
        model = fasttext.train_supervised(file.name, seed=seed, **FASTTEXT | {"epoch": epochs})
    found = [int(labels[0].removeprefix("__label__")) for labels in model.predict(lines[1])[0]]
    return float((np.array(found) == test[1]).mean())


def train_on_embeddings(train: Rows, test: Rows, seed: int, embed: Callable[[list[str]], np.ndarray]) -> float:
    """Logistic regression on the embeddings of a sentence encoder that is not trained."""
    from sklearn.linear_model import LogisticRegression

    features = [embed([" ".join(row) for row in rows]) for rows, _ in (train, test)]
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000, random_state=seed)
    return float(model.fit(features[0], train[1]).score(features[1], test[1]))


def keep_embeddings(teacher: SentenceEncoder) -> Callable[[list[str]], np.ndarray]:
    """``teacher.encode`` that gives each text to the teacher once."""
    kept: dict[str, np.ndarray] = {}

    def embed(texts: list[str]) -> np.ndarray:
        new = list(dict.fromkeys(text for text in texts if text not in kept))
        if new:
            kept.update(zip(new, teacher.encode(new)))
        return np.stack([kept[text] for text in texts])

    return embed


def measure(table: Table, methods: dict[str, Method], done: set[tuple[str, int, int]], numbers: Sequence[int],
            draws: int) -> Iterator[dict[str, Any]]:
    """Every result that is not in ``done`` (method, rows of a class, draw), for those ``numbers`` of rows that every
    class has."""
    names = sorted({row[-1] for row in table.rows["train"]})
    splits: dict[str, Rows] = {
        split: ([tuple(row[:-1]) for row in table.rows[split]],
                np.array([names.index(row[-1]) for row in table.rows[split]])) for split in ("train", "test")}
    texts, labels = splits["train"]
    fewest = int(np.bincount(labels).min())
    for num_rows in (number for number in numbers if number <= fewest):
        for draw in range(1 if num_rows == ALL else draws):
            places = draw_rows(labels, num_rows, draw)
            train = ([texts[place] for place in places], labels[places])
            for method, fit in methods.items():
                if (method, num_rows, draw) not in done:
                    yield {"method": method, "rows_of_a_class": num_rows, "draw": draw, "train": len(places),
                           "accuracy": round(fit(train, splits["test"], draw), 4)}


def write_results(results: list[dict[str, str]], output: Path) -> list[Path]:
    """Write few_rows.md and few_rows.png, and return their paths."""
    grouped: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in results:
        grouped.setdefault((row["table"], int(row["rows_of_a_class"])), {}).setdefault(row["method"], []).append(
            100 * float(row["accuracy"]))
    grouped = dict(sorted(grouped.items(), key=lambda item: (item[0][0], item[0][1] == ALL, item[0][1])))
    methods = [name for name in NAMES if any(name in found for found in grouped.values())]
    lines = [[table, str(rows or "all"), *(_mean(found.get(method)) for method in methods)]
             for (table, rows), found in grouped.items()]
    most = max(int(row["draw"]) + 1 for row in results)
    text = output / "few_rows.md"
    text.write_text("\n".join([
        "# Few rows\n",
        f"Accuracy on all test rows in percent: the mean of {most} draws of so many rows of each class, and their "
        "standard deviation; a figure without one is a single training. The pretrained encoder and random numbers are "
        "what `dendritic-bert train` starts from, each with the defaults. fastText has words and pairs of words; the "
        "frozen sentence encoder is under a logistic regression.\n",
        "![Accuracy against rows of a class](few_rows.png)\n",
        markdown_table(["table", "rows of a class", *methods], lines),
        made_by("few_rows")]), encoding="utf-8")
    return [text, plots.few_rows(grouped, methods, output / "few_rows.png")]


def _mean(values: list[float] | None) -> str:
    if values is None:
        return "-"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and print the paths of what was written."""
    parser = table_parser(__doc__, list(OWN_TABLES), "build/few_rows")
    parser.add_argument("--teacher", help="folder or hub id of the frozen sentence encoder (default: without it)")
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=NAMES, help="what to train (default: all)")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"draws of rows (default: {DRAWS})")
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS, help=f"rows of each class, {ALL} for all")
    args = parser.parse_args(argv)
    methods: dict[str, Method] = {ENCODER: train_ours, RANDOM: partial(train_ours, init="random"), TFIDF: train_tfidf,
                                  WORDS: train_fasttext}
    if args.teacher:
        methods[FROZEN] = partial(train_on_embeddings, embed=keep_embeddings(SentenceEncoder(args.teacher)))
    methods = {name: fit for name, fit in methods.items() if name in args.methods}
    path = args.output / "few_rows.csv"
    results = read_csv(path)
    for name in args.tables:
        done = {(row["method"], int(row["rows_of_a_class"]), int(row["draw"])) for row in results
                if row["table"] == name}
        for found in measure(read_table(name, args.own_dir, args.data_dir), methods, done, args.rows, args.draws):
            results.append({"table": name} | {key: str(value) for key, value in found.items()})
            write_csv(path, results)
            print(results[-1], file=sys.stderr, flush=True)
    print(path, *write_results(results, args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
