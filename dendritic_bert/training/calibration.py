"""Temperature scaling: one number that makes a model's probabilities as sure as they are right.

C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On Calibration of Modern Neural Networks, 2017,
https://arxiv.org/abs/1706.04599, section 4.2.
"""

from __future__ import annotations

import math

import numpy as np

from .evaluation import log_loss, predict

BOUNDS = (0.01, 100.0)
MOST_ROWS = 50_000  # with them the temperature of 5 million rows is known to about 1 %


def fit_temperature(logits: np.ndarray, labels: np.ndarray, problem_type: str) -> float:
    """The number by which to divide the logits so that the labels of held-out rows are most likely.

    The log-likelihood is concave in 1/T, so there is one maximum, which Brent's method finds between 0.01 and 100. It
    is fitted on at most 50,000 rows, evenly spaced. The answer is the same at every call.

    Args:
        logits, labels: of held-out rows, as in ``evaluation.Evaluation``.
        problem_type: "single_label_classification" (softmax), "multi_label_classification" (sigmoid), or "regression".

    Returns:
        The temperature; 1 for a regression, which has no probabilities, for no rows, and where every answer is right:
        the likelihood then grows without end as the temperature falls, and tells nothing about it.
    """
    from scipy.optimize import minimize_scalar

    step = math.ceil(len(labels) / MOST_ROWS) or 1
    logits, labels = logits[::step], labels[::step]
    if problem_type == "regression" or not len(labels) or np.array_equal(predict(logits, problem_type), labels):
        return 1.0
    found = minimize_scalar(lambda log_temperature: log_loss(logits, labels, problem_type, math.exp(log_temperature)),
                            bounds=tuple(map(math.log, BOUNDS)), method="bounded", options={"xatol": 1e-5})
    return float(math.exp(found.x))
