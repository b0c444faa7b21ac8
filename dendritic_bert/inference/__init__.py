"""From text to labels: tokenization, the classifier, and files of any size."""
