"""Train on a CSV file of your own, score the held-out rows, and classify with the result.

    pip install ".[train]"
    python examples/train_on_csv.py reviews.csv my-model
"""

import sys

from dendritic_bert import TextClassifier
from dendritic_bert.training.options import TrainingOptions
from dendritic_bert.training.trainer import train

file, folder = sys.argv[1:]

# Columns and labels are found, a tenth of the rows is held out, and batch size, epochs, learning rate and the rest
# follow the number of rows; each can be given, under the name that it has in `dendritic-bert train --help`.
results = train(TrainingOptions(train_file=[file], output_dir=folder))

scores, baseline = results["runs"][0], results["baseline"]
print(f"{results['num_train']} rows to train on, {results['num_dev']} held out")
print(f"accuracy {scores['accuracy']:.3f}, macro F1 {scores['macro_f1']:.3f}; "
      f"TF-IDF and logistic regression {baseline['accuracy']:.3f}; the most frequent label {results['majority']:.3f}")

# The folder holds the weights, the tokenizer, and a model card with the confusion matrix.
classifier = TextClassifier.from_pretrained(folder)
for prediction in classifier(["i was charged twice this month", "the parcel has not come"]):
    print(prediction)
