"""The files that a training leaves, and how two trainings are compared."""

import torch
from safetensors.torch import load_file

FILES = ["README.md", "config.json", "model.safetensors", "modeling_dendritic_bert.py", "tokenizer.json",
         "tokenizer_config.json"]


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scores_alone(results) -> list[dict]:
    return [{name: value for name, value in run.items() if name != "seconds"} for run in results["runs"]]
