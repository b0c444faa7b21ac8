"""Where word table and projection begin."""

import numpy as np
import pytest
import torch

from dendritic_bert.pretraining.embedded_texts import EmbeddedTexts, words_of
from dendritic_bert.pretraining.word_start import start_from_words
from dendritic_bert.training.initialization import build_model, make_tokenizer


@pytest.mark.parametrize("windows", [{}, {"window_dendrites": 8, "window_layers": 2}])
def test_a_word_alone_has_nearly_the_teachers_embedding(options, windows):
    """With as many axes as there are dimensions nothing is lost: a text of one word, whose special tokens count as
    nothing and take their share of the mean, lies on the line from the mean embedding to the word's."""
    settings = options(hidden_size=32, **windows)
    benchmark = EmbeddedTexts(settings)
    tokenizer = make_tokenizer(settings, benchmark.texts())
    benchmark.encode(tokenizer, 64)
    model = build_model(benchmark.model_class, settings, benchmark.settings, len(tokenizer)).eval()
    start_from_words(model, benchmark)
    mean = benchmark.embeddings[:].astype(np.float64).mean(axis=0)
    word = tokenizer.convert_tokens_to_ids("warm")
    ids = torch.tensor([[tokenizer.cls_token_id, word, tokenizer.sep_token_id]])
    model.classifier.weight.data[:, 32:] = 0
    found = model(input_ids=ids).logits[0].detach().numpy()
    expected = mean + (benchmark.teacher.encode(["warm"])[0] - mean) / 3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_words_of_a_vocabulary(options):
    settings = options()
    tokenizer = make_tokenizer(settings, ["warm charming filming", "warm film"] * 9)
    words = words_of(tokenizer)
    assert len(words) == len(tokenizer)
    assert words[tokenizer.pad_token_id] == ""
    assert words[tokenizer.convert_tokens_to_ids("warm")] == "warm"
    assert words[tokenizer.convert_tokens_to_ids("##m")] == "m"
