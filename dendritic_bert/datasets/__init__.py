"""Labelled texts for training and evaluation: GLUE, SQuAD, and rows in memory."""
