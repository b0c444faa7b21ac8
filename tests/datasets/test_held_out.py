"""The held-out rows: as many of each class as scikit-learn's stratified split takes, and the same at every call."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from dendritic_bert.datasets.held_out import draw_held_out
from dendritic_bert.datasets.labels import CLASSES, REGRESSION, SEVERAL, Labels


def classes(ids) -> Labels:
    ids = np.array(ids, np.int32)
    return Labels(CLASSES, tuple(map(str, range(ids.max() + 1))), ids)


def different(size: int) -> np.ndarray:
    return np.arange(size, dtype=np.uint64)


@pytest.mark.parametrize("share", [0.1, 0.25])
@pytest.mark.parametrize("counts", [(20, 20), (60, 25, 15), (1000, 100, 10), (40,) * 30])
def test_a_share_of_each_class(counts, share):
    ids = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    held = draw_held_out(classes(ids), different(len(ids)), share, seed=0)
    _, theirs = train_test_split(ids, test_size=share, stratify=ids, random_state=0)
    assert held.sum() == len(theirs)
    difference = np.bincount(ids[held], minlength=len(counts)) - np.bincount(theirs, minlength=len(counts))
    assert np.abs(difference).max() <= 1  # ties among the remainders
    assert difference.sum() == 0


@pytest.mark.parametrize("seed", range(3))
def test_small_classes(seed):
    """73 classes in 100 rows: a class of one row is trained on, one of ten or more is scored too."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.concatenate([np.arange(70), np.repeat([70, 71, 72], [2, 10, 18])]))
    held = draw_held_out(classes(ids), different(100), 0.1, seed)
    kept = np.bincount(ids[~held], minlength=73)
    assert kept.min() >= 1
    assert held[np.isin(ids, [71, 72])].sum() >= 2
    assert held.sum() == 4  # all that can be spared: one of the two rows, 1 of 10, 2 of 18


def test_a_seed_gives_one_draw():
    ids = np.arange(400) % 4
    first, again, other = (draw_held_out(classes(ids), different(400), 0.1, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("labels", [
    Labels(REGRESSION, (), np.linspace(0, 1, 200, dtype=np.float32)),
    Labels(SEVERAL, ("a",), np.zeros(200, np.int32), np.arange(201))])
def test_other_rows_are_drawn_at_random(labels):
    held = draw_held_out(labels, different(200), 0.1, 0)
    assert held.sum() == 20
    assert np.flatnonzero(held).std() > 30  # of 200 rows in a row it would be 6


def test_equal_texts_stay_together():
    ids = np.arange(300) % 3
    digests = different(300) // 6 * 3 + ids.astype(np.uint64)  # each text stands twice, with one label
    held = draw_held_out(classes(ids), digests, 0.1, 0)
    assert held.sum() == 30
    assert not set(digests[held]) & set(digests[~held])


@pytest.mark.parametrize("seed", range(10))
def test_a_share_of_the_rows_and_not_of_the_texts(seed):
    """One text of a class stands in 20 rows of 100, the others in 1, 2 or 3: they fill the tenth, and it never does."""
    numbers = np.concatenate([np.zeros(20), np.repeat(np.arange(1, 41), [1, 2, 3, 2] * 10)]).astype(np.uint64)
    ids, digests = np.repeat([0, 1], 100), np.concatenate([numbers, numbers + 100])
    held = draw_held_out(classes(ids), digests, 0.1, seed)
    assert np.bincount(ids[held]).tolist() == [10, 10]
    assert not set(digests[held]) & {0, 100, *digests[~held].tolist()}
    numbers = Labels(REGRESSION, (), ids.astype(np.float32))
    assert draw_held_out(numbers, digests, 0.1, seed).sum() in (19, 20)


@pytest.mark.parametrize("repeats", [2, 3])
def test_small_classes_whose_texts_stand_more_than_once(repeats):
    """No text fits into a tenth of 12 rows, 1 or 2 of them; as many classes give one as the whole holds."""
    ids, digests = np.repeat(np.arange(30), 12), np.arange(360, dtype=np.uint64) // repeats
    held = draw_held_out(classes(ids), digests, 0.1, 0)
    assert held.sum() == 36
    assert np.bincount(ids[held]).max() == repeats


def test_a_text_that_stands_in_most_rows_does_not_use_up_the_others():
    digests = np.concatenate([np.zeros(500), np.arange(1, 31)]).astype(np.uint64)
    held = draw_held_out(classes([0] * 530 + [1] * 10), np.append(digests, 100 + different(10)), 0.1, 0)
    assert held[:530].sum() == 7  # twice a tenth of 31 texts
    assert held[530:].sum() == 1


def test_a_text_with_several_labels_is_trained_on():
    ids, digests = np.arange(100) % 2, different(100) // 10 * 10 + 1
    digests[50:] = different(100)[50:] + 1000
    held = draw_held_out(classes(ids), digests, 0.3, 0)
    assert not held[:50].any()
    assert held.any()


@pytest.mark.parametrize("ids", [[0, 1], [0, 1, 2, 3]])
def test_nothing_to_hold_out(ids):
    with pytest.raises(ValueError, match=r"^hold_out is 0\.1, which of \d rows leaves none on one side: change it"):
        draw_held_out(classes(ids), different(len(ids)), 0.1, 0)


def test_every_text_has_several_labels():
    with pytest.raises(ValueError, match=r"^each text of the 80 rows has several labels, and such a text is trained "
                                         r"on: put them into one row, as a list or with label_separator, or pass "
                                         r"dev_file\.$"):
        draw_held_out(classes(np.arange(80) % 2), different(80) // 2, 0.1, 0)


def test_rows_of_one_text():
    with pytest.raises(ValueError, match=r"^all 40 rows have the same text, .*: pass dev_file\.$"):
        draw_held_out(classes(np.arange(40) % 2), np.zeros(40, np.uint64), 0.1, 0)
