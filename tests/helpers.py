"""What several test files share."""

import os
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_path(name: str) -> Path:
    """A file or folder of the data that is too large for the repository; skips the test where it is not there."""
    roots = [Path(os.environ["DENDRITIC_BERT_DATA"])] if "DENDRITIC_BERT_DATA" in os.environ else []
    roots.append(REPOSITORY.parent / "shared")
    for root in roots:
        if (root / name).exists():
            return root / name
    pytest.skip(f"{name} is not in {' or '.join(map(str, roots))}: set DENDRITIC_BERT_DATA to the folder that holds it")


def tiny_bert(model_class=BertForSequenceClassification, **config) -> PreTrainedModel:
    """A BERT of transformers' own with random weights everywhere, LayerNorm's included (a fresh one has 1 and 0)."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 20}
    model = model_class(BertConfig(**sizes | config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model.eval()
