"""The pictures are PNG files of a size that can be read, the same at every call, and whole or not there."""

import struct

import numpy as np
import pytest

from dendritic_bert.training.evaluation import reliability
from dendritic_bert.training.pictures import draw_confusion_matrix, draw_reliability, draw_values


def size_of(path) -> tuple[int, int]:
    """Width and height, from the header of a PNG file (https://www.w3.org/TR/png, 11.2.1)."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize(("classes", "least"), [(1, 300), (2, 300), (30, 400)])
def test_confusion_matrix(tmp_path, classes, least):
    matrix = np.random.default_rng(0).integers(0, 50, (classes, classes))
    names = [f"{'$' * (i % 3)}class_{i} 天气" for i in range(classes)]
    draw_confusion_matrix(tmp_path / "a.png", matrix, names)
    draw_confusion_matrix(tmp_path / "b.png", matrix, names)
    assert least < min(size_of(tmp_path / "a.png")) < 3000
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_class_has_as_much_room_among_150(tmp_path, monkeypatch):
    """Names of 5 points need 0.07 inch; each class has 0.11. Nothing is drawn, which takes seconds."""
    figures = []
    monkeypatch.setattr("dendritic_bert.training.pictures._save", lambda figure, path: figures.append(figure))
    matrix = np.eye(150, dtype=np.int64)
    draw_confusion_matrix(tmp_path / "a.png", matrix, ["name"] * 150)
    axes = figures[0].axes[0]
    width = axes.get_position().width * figures[0].get_figwidth()
    assert width / 150 >= 0.11 - 1e-9
    assert len(axes.get_xticks()) == 150
    matrix = np.eye(300, dtype=np.int64)
    matrix[7, 290] = 5
    draw_confusion_matrix(tmp_path / "a.png", matrix, [f"class {i}" for i in range(300)])
    names = [text.get_text() for text in figures[1].axes[0].get_yticklabels()]
    assert len(names) == 200
    assert names[7] == "class 7"
    assert names[-1] == "class 290", "it has errors, so it is shown"


def test_reliability(tmp_path):
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    curves = {name: reliability(logits, labels, "single_label_classification", temperature)
              for name, temperature in (("as trained", 1.0), ("temperature 3", 3.0))}
    draw_reliability(tmp_path / "a.png", curves)
    assert size_of(tmp_path / "a.png") == (750, 900)


@pytest.mark.parametrize(("rows", "targets", "points"), [(3, 1, 3), (1, 2, 1), (12_001, 11, 4001)])
def test_values(tmp_path, monkeypatch, rows, targets, points):
    """Each target has its points in a part of its own, and of many rows every n-th is a point."""
    figures = []
    monkeypatch.setattr("dendritic_bert.training.pictures._save", lambda figure, path: figures.append(figure))
    labels = np.arange(rows * targets, dtype=float).reshape(rows, targets)
    draw_values(tmp_path / "a.png", labels + 0.5, labels, [f"value {i}" for i in range(targets)])
    parts = figures[0].axes
    assert len(parts) == min(targets, 9)
    for number, axes in enumerate(parts):
        found = np.asarray(axes.collections[0].get_offsets())
        assert len(found) == points
        true = labels[::-(-rows // points), number]
        assert found.tolist() == [[value, value + 0.5] for value in true]
        assert axes.get_title() == (f"value {number}" if targets > 1 else "")


def test_a_picture_of_values(tmp_path):
    draw_values(tmp_path / "a.png", np.full((5, 1), 2.0), np.full((5, 1), 3.0), ["score"])
    assert size_of(tmp_path / "a.png") == (750, 630)
