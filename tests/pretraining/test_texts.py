"""Which texts are held out, in which order the others come, and what tells two lists apart."""

import pytest

from dendritic_bert.pretraining.texts import Texts


@pytest.fixture
def write(tmp_path):
    def write(texts, name="a.txt") -> str:
        (tmp_path / name).write_text("\n".join(texts) + "\n")
        return str(tmp_path / name)

    return write


def test_held_out_texts_come_first_and_are_spread_over_the_files(write):
    names = [f"text {number}" for number in range(60)]
    texts = Texts([write(names[:40]), write([*names[40:], ""], "b.txt")], None, 4)
    held = [names[7], names[22], names[37], names[52]]  # the middles of four parts of 15
    assert list(texts) == held + [name for name in names if name not in held]
    assert (texts.num_held_out, texts.num_train, len(texts)) == (4, 56, 60)
    assert list(texts) == list(texts)


@pytest.mark.parametrize(("count", "asked", "held"), [(2, 5000, 1), (19, 5000, 1), (20, 5000, 2), (60, 1, 1)])
def test_at_most_a_tenth_is_held_out(write, count, asked, held):
    texts = Texts([write([f"text {number}" for number in range(count)])], None, asked)
    assert (texts.num_held_out, texts.num_train) == (held, count - held)


def test_what_is_held_out_is_nowhere_among_the_others(write):
    texts = Texts([write(["same", "other", "same", "third", "same"] * 4)], None, 2)
    assert texts.held_out == ["same"] or "same" not in texts.held_out
    rest = list(texts)[texts.num_held_out:]
    assert not set(rest) & set(texts.held_out)
    assert rest.count("other") in (0, 4)  # what is not held out comes as often as it stands in the file


def test_batches_from_any_place(write):
    texts = Texts([write([f"text {number}" for number in range(23)])], None, 2)
    assert [text for batch in texts.batches(5, 10) for text in batch] == list(texts)[10:]
    assert [len(batch) for batch in texts.batches(5, 10)] == [5, 5, 3]
    assert list(texts.batches(5, 23)) == []


def test_the_digest_follows_texts_order_and_what_is_held_out(write):
    names = [f"text {number}" for number in range(30)]
    digests = {Texts([write(lines)], None, held).digest for lines, held in (
        (names, 3), (names[::-1], 3), (names[:-1], 3), ([*names[:-1], "text 9999"], 3), (names, 2))}
    assert len(digests) == 5
    assert Texts([write(names, "b.txt")], None, 3).digest in digests


def test_too_few_texts(write):
    with pytest.raises(ValueError, match=r"^text_file has 1 texts, of which none would be left to train on"):
        Texts([write(["alone"])], None, 5)
