"""Grow dendrites while a Trainer trains, on a task that no linear head can learn: is exactly one of two words there?

    pip install ".[train]"
    python examples/grow_dendrites.py
"""

import tempfile

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification
from dendritic_bert.growth.callback import GrowDendrites, most_epochs
from dendritic_bert.growth.rule import Growth

MAX_DENDRITES, TRIES, EPOCHS = 2, 2, 30  # EPOCHS is the most of each stage, between one dendrite and the next

torch.manual_seed(0)
model = DendriticBertForSequenceClassification(DendriticBertConfig(
    vocab_size=8, hidden_size=16, num_hidden_layers=0, num_attention_heads=1, max_position_embeddings=4,
    hidden_dropout_prob=0.0))
torch.nn.init.normal_(model.bert.embeddings.word_embeddings.weight)
model.bert.requires_grad_(False)  # so that the head alone has to learn the task

bits = torch.randint(2, (512, 2))  # ids 1 and 2 say no, 3 and 4 say yes
rows = [{"input_ids": row * 2 + torch.tensor([1, 2]), "labels": row.sum() % 2} for row in bits]
arguments = TrainingArguments(
    tempfile.mkdtemp(), num_train_epochs=most_epochs(MAX_DENDRITES, TRIES, EPOCHS), per_device_train_batch_size=64,
    learning_rate=0.05, lr_scheduler_type="constant", eval_strategy="epoch", save_strategy="no", logging_strategy="no",
    report_to="none", disable_tqdm=True)
trainer = Trainer(model, arguments, train_dataset=rows[:384], eval_dataset=rows[384:],
                  compute_metrics=lambda found: {"accuracy": np.mean(found.predictions.argmax(-1) == found.label_ids)})

# A dendrite grows where the accuracy on held-out rows has stalled for `patience` epochs. PerforatedGrowth(model,
# MAX_DENDRITES, folder) from growth.perforatedai_rule would let PerforatedAI's own tracker decide, by the same rule.
GrowDendrites(trainer, Growth(model, MAX_DENDRITES, patience=8, tries=TRIES), "accuracy", EPOCHS).train()
accuracy = trainer.evaluate()["eval_accuracy"]
print(f"dendrites for each output: {model.config.num_dendrites}; accuracy: {accuracy:.2f}")
