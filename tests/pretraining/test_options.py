"""What pretraining can be told."""

import pytest

from dendritic_bert.pretraining.options import RECIPE, PretrainingOptions
from dendritic_bert.training.command_line import command_line

GIVEN = {"teacher": "a-teacher", "text_file": "sentences.txt.xz"}


def test_what_is_left_out_is_the_recipe():
    options = PretrainingOptions(**GIVEN)
    assert {name: getattr(options, name) for name in RECIPE} == RECIPE
    assert (options.benchmark, options.dsn, options.task) == ("own", True, "sentences")
    assert options.text_file == ["sentences.txt.xz"]
    assert PretrainingOptions(**GIVEN, epochs=9, hidden_size=8).epochs == 9


def test_a_tokenizer_or_a_checkpoint_brings_its_own_sizes():
    assert PretrainingOptions(**GIVEN, tokenizer_name="a").vocab_size is None
    options = PretrainingOptions(**GIVEN, model_name="an-encoder")
    assert (options.vocab_size, options.hidden_size) == (None, None)


def test_the_command_gives_the_same_options():
    words = command_line(PretrainingOptions(**GIVEN, window_dendrites=64, window_layers=4))
    assert words[:2] == ["dendritic-bert", "pretrain"]
    assert " ".join(words).count("--teacher a-teacher") == 1
    assert "--window_dendrites 64 --window_layers 4" in " ".join(words)


@pytest.mark.parametrize(("changes", "message"), [
    ({"teacher": None}, "teacher is not given"), ({"text_file": []}, "text_file is not given"),
    ({"train_file": "a.csv"}, "train_file is a.csv"), ({"num_dendrites": 2}, "num_dendrites is 2"),
    ({"head_hidden": 5}, "head_hidden is 5"), ({"teacher_pooling": "max"}, "teacher_pooling is 'max'"),
    ({"words_from": "a"}, "words_from is 'a'"), ({"num_held_out": 0}, "num_held_out is 0"),
    ({"teacher_max_length": 0}, "teacher_max_length is 0"), ({"gram_weight": -1.0}, "gram_weight is -1"),
    ({"joint": True}, "joint is True"), ({"hold_out": 0.1}, "hold_out is 0.1"),
    ({"teacher": "encoder", "output_dir": "x/../encoder"}, "^teacher and output_dir are both x/../encoder, where"),
    ({"window_layers": 3}, "window_dendrites is 0 and window_layers is 3")])
def test_what_cannot_be_used(changes, message):
    with pytest.raises(ValueError, match=message):
        PretrainingOptions(**GIVEN | changes)
