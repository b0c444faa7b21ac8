"""3-bit parity for a DSN: no linear head can learn it, but dendrites can.

Each row has three words that say a bit each (its place and its value) and three that say nothing; the label is the
parity of the bits. The embeddings are random and frozen, so that all there is to learn is the head's.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification

NUM_IDLE_WORDS = 10
LEARNING_RATE, STEPS = 0.02, 10


class Rows(NamedTuple):
    input_ids: Tensor
    labels: Tensor


def parity_rows(seed: int, size: int = 512) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (size, 3), generator=generator)
    idle = 7 + torch.randint(NUM_IDLE_WORDS, (size, 3), generator=generator)
    return Rows(torch.cat([1 + bits + 2 * torch.arange(3), idle], dim=1), bits.sum(dim=1) % 2)


def parity_model(seed: int, head_hidden: int | None = None) -> DendriticBertForSequenceClassification:
    torch.manual_seed(seed)
    model = DendriticBertForSequenceClassification(DendriticBertConfig(
        vocab_size=7 + NUM_IDLE_WORDS, hidden_size=32, num_hidden_layers=0, num_attention_heads=1,
        max_position_embeddings=8, hidden_dropout_prob=0.0, head_hidden=head_hidden))
    nn.init.normal_(model.bert.embeddings.word_embeddings.weight)
    model.bert.requires_grad_(False)
    return model.double().eval()  # in float32 what two implementations round differently grows, epoch by epoch


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], LEARNING_RATE)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows) -> None:
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(input_ids=rows.input_ids).logits, rows.labels).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, rows: Rows) -> float:
    return (model(input_ids=rows.input_ids).logits.argmax(dim=1) == rows.labels).float().mean().item()
