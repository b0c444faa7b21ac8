"""Logits that are appended to a file are found by whoever opens it next."""

import numpy as np
import pytest

from dendritic_bert.training.kept_logits import KeptLogits


@pytest.mark.parametrize("num_labels", [1, 2, 150])
def test_logits_are_kept_and_found_in_any_order(tmp_path, num_labels):
    path = tmp_path / "folder" / "logits.kept"
    texts = ["a", "", "ä \ud800", "a b"]
    logits = np.arange(4 * num_labels, dtype=np.float32).reshape(4, num_labels) / 7
    kept = KeptLogits(path, num_labels)
    assert kept.missing([*texts, "a"]) == texts
    kept.append(texts[:3], logits[:3])
    assert kept.missing(texts) == ["a b"]
    again = KeptLogits(path, num_labels)
    again.append(["a b"], logits[3:])
    order = [3, 0, 0, 2, 1]
    for reader in (again, KeptLogits(path, num_labels)):
        assert np.array_equal(reader.of([texts[place] for place in order]), logits[order])


def test_a_record_that_was_not_finished_is_written_again(tmp_path):
    path = tmp_path / "logits.kept"
    kept = KeptLogits(path, 2)
    kept.append(["a", "b"], np.array([[1, 2], [3, 4]]))
    path.write_bytes(path.read_bytes()[:-5])
    kept = KeptLogits(path, 2)
    assert kept.missing(["a", "b"]) == ["b"]
    kept.append(["b"], np.array([[5, 6]]))
    assert KeptLogits(path, 2).of(["b", "a"]).tolist() == [[5, 6], [1, 2]]
