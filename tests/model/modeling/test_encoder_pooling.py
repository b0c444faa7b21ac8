"""The pooling of an encoder: the mean over its tokens, without padding."""

import torch
from transformers import BertModel


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
