"""Classify texts with an exported model: onnxruntime, tokenizers and numpy suffice, without torch and this package.

    dendritic-bert export MODEL my-onnx
    python run_onnx.py my-onnx "a charming journey" "unflinchingly bleak"
"""

import json
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, texts = sys.argv[1], sys.argv[2:]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # it cuts to the model's length and pads the batch
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map

encodings = tokenizer.encode_batch(texts)
arrays = {"input_ids": [encoding.ids for encoding in encodings],
          "attention_mask": [encoding.attention_mask for encoding in encodings],
          "token_type_ids": [encoding.type_ids for encoding in encodings]}
inputs = {argument.name: np.array(arrays[argument.name], np.int64) for argument in session.get_inputs()}
scores = session.run(["logits"], inputs)[0].astype(np.float64) / float(about["temperature"])

labels = json.loads(about["labels"])
problem = about["problem_type"]
if problem != "regression" and (problem == "multi_label_classification" or len(labels) == 1):
    scores = 1 / (1 + np.exp(-scores))
elif problem != "regression":
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
for text, row in zip(texts, scores):
    print(json.dumps({"text": text, "label": labels[row.argmax()], "score": round(float(row.max()), 6)}))
