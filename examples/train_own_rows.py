"""Train on rows of your own with the Trainer of transformers, then classify with the result.

    pip install ".[train]"
    python examples/train_own_rows.py my-model
"""

import sys

import torch
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from dendritic_bert import EMBEDDED_MODEL, DendriticBertForSequenceClassification, TextClassifier

LABELS = ["billing", "delivery"]
ROWS = [("i was charged twice this month", "billing"), ("the parcel has not come", "delivery"),
        ("please refund the last payment", "billing"), ("it was left at the wrong door", "delivery"),
        ("why is the price on my bill higher", "billing"), ("when will the driver be here", "delivery"),
        ("my card was declined but the money is gone", "billing"), ("the box came broken and late", "delivery")]

set_seed(0)
# The words start from the embedded model's vectors, here SST-2's; the head is new, since its labels are others.
# A BERT checkpoint such as prajjwal1/bert-tiny would do as well: its encoder is left out. The weights are stored in
# float16, and the model computes in int8, which was tried with its own labels alone.
model = DendriticBertForSequenceClassification.from_pretrained(
    EMBEDDED_MODEL, dtype=torch.float32, table_dtype=None, num_labels=len(LABELS), id2label=dict(enumerate(LABELS)),
    label2id={name: label for label, name in enumerate(LABELS)}, num_dendrites=1, ignore_mismatched_sizes=True)
tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
rows = [{**tokenizer(text), "labels": LABELS.index(label)} for text, label in ROWS]

folder = sys.argv[1] if len(sys.argv) > 1 else "my-model"
arguments = TrainingArguments(folder, num_train_epochs=20, per_device_train_batch_size=8, learning_rate=2e-2,
                              logging_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True)
trainer = Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
trainer.train()
trainer.save_model(folder)
tokenizer.save_pretrained(folder)

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"training loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")
print(TextClassifier.from_pretrained(folder)("the payment was charged twice"))
