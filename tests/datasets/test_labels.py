"""Labels that are missing, and keys of rows with the same labels."""

import numpy as np
import pytest

from dendritic_bert.datasets.labels import REGRESSION, Labels, is_missing

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_targets", [2, 8, 17, 33])
def test_equal_rows_of_targets_have_equal_keys(num_targets):
    """In any number of rows: a product of matrices sums the first rows in another order than the last ones."""
    targets = RNG.normal(size=(2, num_targets)).astype(np.float32)
    for size in range(2, 70):
        row = RNG.integers(0, 2, size)
        assert np.unique(np.stack([row, Labels(REGRESSION, (), targets[row]).keys()]), axis=1).shape[1] == len({*row})


def test_missing_labels():
    assert all(map(is_missing, (None, "", "  ", "nan", "NaN", float("nan"), np.float32("nan"))))
    assert all(map(is_missing, (["a", None], [0.5, float("nan")], np.array([np.nan, 1.0]))))
    assert not any(map(is_missing, ("a", 0, 0.0, False, [], ["a"], [""], np.array([1.0, 2.0]))))
    assert is_missing(None, ";")
    assert not is_missing("", ";")
