"""Principal axes beside a singular value decomposition, and embeddings on the first of them."""

import numpy as np
import pytest

from dendritic_bert.pretraining.principal_axes import keep_on_axes, on_axes, principal_axes, spread_sample


@pytest.mark.parametrize(("rows", "size", "count"), [(50, 7, 3), (50, 7, 7), (50, 7, 9), (5, 12, 4)])
def test_axes_are_those_of_a_singular_value_decomposition(rows, size, count):
    matrix = np.random.default_rng(0).normal(size=(rows, size)) * np.arange(1, size + 1)
    matrix -= matrix.mean(axis=0)
    axes = principal_axes(matrix, count)
    kept = min(count, size)
    _, _, expected = np.linalg.svd(matrix, full_matrices=False)
    assert axes.shape == (size, kept)
    np.testing.assert_allclose(axes.T @ axes, np.eye(kept), atol=1e-12)
    cosines = np.abs((axes[:, :len(expected)].T * expected[:kept]).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-9)
    assert (axes.max(axis=0) >= -axes.min(axis=0)).all()


@pytest.mark.parametrize("size", [1, 5, 12])
def test_cosines_are_those_of_the_best_approximation(size, tmp_path, monkeypatch):
    """No other d numbers for each row have products nearer to those of the rows (Eckart and Young 1936)."""
    monkeypatch.setattr("dendritic_bert.pretraining.principal_axes.ROWS_AT_ONCE", 7)
    rows = np.random.default_rng(1).normal(size=(40, 12)) * np.arange(1, 13)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    axes = principal_axes(rows.astype(np.float64), size)
    left, values, _ = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    best = left[:, :size] * values[:size]
    best /= np.linalg.norm(best, axis=1, keepdims=True)
    found = on_axes(rows, axes)
    np.testing.assert_allclose(found @ found.T, best @ best.T, atol=1e-6)
    kept = keep_on_axes(rows, axes, tmp_path)
    assert (kept.dtype, kept.shape) == (np.float16, (40, size))
    assert np.array_equal(kept, found.astype(np.float16))
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_the_embedding_of_no_length():
    assert np.array_equal(on_axes(np.zeros((2, 3), np.float16), np.eye(3)[:, :2]), np.zeros((2, 2)))


@pytest.mark.parametrize(("rows", "step"), [(9, 1), (10, 1), (20, 2), (39, 3)])
def test_a_sample_is_spread_evenly(rows, step, monkeypatch):
    monkeypatch.setattr("dendritic_bert.pretraining.principal_axes.MOST_TEXTS", 10)
    embeddings = np.arange(rows, dtype=np.float16)[:, None]
    sample = spread_sample(embeddings)
    assert sample.dtype == np.float32
    assert np.array_equal(sample[:, 0], np.arange(0, rows, step))
