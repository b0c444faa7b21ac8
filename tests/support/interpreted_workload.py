"""Batches and parameters for the tests of the interpreted Triton kernels."""

import pytest
from cases import head, parameters, tokens

from dendritic_bert.kernels.backends.triton import configs

# The largest of each go beyond every limit of the kernels and end within a step: 300 columns are four splits of 64 and
# part of one, two steps of the mask of 128 and part of one, and more than the bucket of 256; three such rows have more
# than the 512 tokens of a program that writes keys; 20 rows are more than the 16 of a program; and 160 channels are
# padded to 256.
# "whole": rows are not split, which the interpreter's own configuration does to all of more than 64 columns.
SIZES = {"length": [0, 1, 2, 31, 129, 300], "rows": [1, 3, 20], "hidden_size": [16, 20, 100, 128, 160],
         "whole": [False, True]}


def workload(case: dict, monkeypatch: pytest.MonkeyPatch, most: int) -> tuple[dict, dict, dict]:
    """Tokens, parameters and head of a case, with rows split or whole as it says. A batch of more than ``most``
    elements gets fewer rows, but no fewer than five."""
    if case["whole"]:
        config = configs.TABLE[0].config._replace(split_columns=configs.ANY)
        monkeypatch.setattr(configs, "candidates", lambda _: [config])
    length, hidden_size = case["length"], case["hidden_size"]
    rows = min(case["rows"], max(5, most // (length * hidden_size + 1)))
    token_arguments = tokens(case["layout"], rows, length, **{
        name: case[name] for name in ("token_types", "positions", "num_types", "index_dtype", "mask_dtype")})
    values = parameters(hidden_size, num_positions=length + 3, num_types=case["num_types"])
    return token_arguments, values, head(hidden_size, case.get("num_labels", 1), case.get("num_dendrites", 0))
