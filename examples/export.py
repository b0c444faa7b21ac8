"""Export the model to ONNX: a graph of standard operators that runs where neither PyTorch nor this package is.

    pip install dendritic-bert onnx onnxscript onnxruntime
    python examples/export.py model.onnx
"""

import sys

import numpy as np
import onnxruntime
import torch
from torch.export import Dim
from transformers import AutoTokenizer

from dendritic_bert import EMBEDDED_MODEL, DendriticBertForSequenceClassification

path = sys.argv[1] if len(sys.argv) > 1 else "model.onnx"
model = DendriticBertForSequenceClassification.from_pretrained(EMBEDDED_MODEL).eval()
tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)

# In an ONNX graph the op is the PyTorch reference, spelled out in standard operators: a custom operator would need this
# package wherever the file is run. Batch size and length stay open.
example = dict(tokenizer(["a charming journey", "no plot"], padding=True, return_tensors="pt"))
open_sizes = {0: Dim("rows"), 1: Dim("length", max=model.config.max_position_embeddings)}
with torch.no_grad():
    torch.onnx.export(model, (), path, kwargs=example, dynamo=True, dynamic_shapes=dict.fromkeys(example, open_sizes))

texts = ["unflinchingly bleak and desperate", "a gripping and funny film", "no wit"]  # other sizes than the example
batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
session = onnxruntime.InferenceSession(path)
logits = session.run(None, {name: values.numpy() for name, values in batch.items()})[0]
with torch.no_grad():
    difference = np.abs(logits - model(**batch).logits.numpy()).max()
print(f"{path}: {[model.config.id2label[int(label)] for label in logits.argmax(axis=1)]}, "
      f"at most {difference:.1e} from PyTorch")
