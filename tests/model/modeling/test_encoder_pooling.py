"""The pooling of an encoder: the mean over its tokens, without padding."""

import pytest
import torch
from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from transformers import BertModel


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT without a head."""
    folder = tmp_path_factory.mktemp("encoder")
    tiny_bert(BertModel, vocab_size=600, max_position_embeddings=128, num_hidden_layers=1).save_pretrained(folder)
    hugging_face_tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_mean_of_the_tokens_under_the_head(encoder):
    """Of the encoder's outputs, without padding."""
    from dendritic_bert import DendriticBertForSequenceClassification

    bert = BertModel.from_pretrained(encoder).eval()
    ours = DendriticBertForSequenceClassification.from_pretrained(encoder, dsn=False, encoder_pooling="mean").eval()
    ids, mask = torch.randint(600, (3, 9)), (torch.arange(9) < torch.tensor([[9], [4], [1]])).long()
    with torch.no_grad():
        hidden = bert(ids, attention_mask=mask).last_hidden_state
        pooled = torch.stack([row[:length].mean(dim=0) for row, length in zip(hidden, mask.sum(dim=1))])
        torch.testing.assert_close(ours(ids, attention_mask=mask).logits, ours.classifier(pooled))
        torch.testing.assert_close(ours(ids).logits, ours.classifier(bert(ids).last_hidden_state.mean(dim=1)))
