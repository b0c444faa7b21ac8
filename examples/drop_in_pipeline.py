"""Use the model in a program that already uses transformers: one more import and another checkpoint.

    python examples/drop_in_pipeline.py
"""

from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import dendritic_bert  # registers the model type "dendritic_bert" with the Auto classes

texts = ["a charming and often affecting journey", "no plot, no wit", "a gripping and funny film"]

# EMBEDDED_MODEL is the folder of the SST-2 model that comes with the package; nothing is downloaded.
model = AutoModelForSequenceClassification.from_pretrained(dendritic_bert.EMBEDDED_MODEL)
tokenizer = AutoTokenizer.from_pretrained(dendritic_bert.EMBEDDED_MODEL)
predictions = pipeline("text-classification", model=model, tokenizer=tokenizer)(texts)
for text, prediction in zip(texts, predictions):
    print(f"{prediction['label']:8}  {prediction['score']:.4f}  {text}")

# TextClassifier needs neither the padding nor the Python work of the pipeline, which takes longer than the model: it
# hands the texts to the kernel as packed ids. It computes this model in int8: scores differ in the fourth decimal, and
# 99.7 % of the labels are the same.
classifier = dendritic_bert.TextClassifier.from_pretrained()
assert [prediction["label"] for prediction in classifier(texts)] == [prediction["label"] for prediction in predictions]
