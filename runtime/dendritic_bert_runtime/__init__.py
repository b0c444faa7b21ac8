"""Text classification by the engine of dendritic-bert, without PyTorch and with the same results to the bit."""

from .classifier import TextClassifier

__all__ = ["TextClassifier"]
