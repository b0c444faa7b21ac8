"""Checkpoints of PerforatedAI: reads both of their forms, and writes the one that PerforatedAI trains.

The *training form* (``best_model.pt``, ``latest.pt``, ``switch_*.pt``, which are safetensors in spite of their names)
stores a wrapped ``nn.Linear`` as ``main_module``, its N dendrites as ``dendrite_module.layers.k``, our
``lateral[k, :k]`` as ``dendrite_module.dendrites_to_dendrites.k`` and our ``top`` as ``dendrites_to_top.{N-1}``; the
other tensors hold the state of PerforatedAI. The *clean form* (``*_pai.pt``) stores the dendrites and then the
main layer as ``layer_array``, and the rest as ``skip_weights``. The activation of the dendrites is in neither of them,
only in ``<name>_config.json`` beside them.

Checked against perforatedai 3.2.9, which is not imported here.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..kernels.contract import ACTIVATIONS
from .dendritic_linear import DendriticLinear, dendritic_layers

if TYPE_CHECKING:
    from .base import DendriticBertPreTrainedModel

BEST_MODEL = "best_model.pt"
TRACKER = "tracker_string"
TOKEN_HEADS = ("qa_outputs",)  # layers whose input is [B, L, H], which PerforatedAI must be told
TRAINING_MARK, CLEAN_MARK = ".dendrite_module.num_cycles", ".num_cycles"
# The activations that a configuration of PerforatedAI can name; it writes gelu as torch._C._nn.gelu.
FORWARD_FUNCTIONS = {"sigmoid": "torch.sigmoid", "tanh": "torch.tanh", "relu": "torch.relu",
                     "gelu": "torch.nn.functional.gelu"}


class PerforatedCheckpoint(NamedTuple):
    """A checkpoint with our names: the parameters of a ``DendriticLinear`` for each wrapped layer.

    num_dendrites and activation are those of every layer that has dendrites; activation is None if none has.
    """

    state_dict: dict[str, Tensor]
    num_dendrites: int
    activation: str | None


def find_perforated(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The checkpoint of PerforatedAI at a path, or in the folder at that path; None if there is none.

    In a folder it is ``model.safetensors``, or else ``best_model.pt``, or else any other file. Beside the weights of
    another checkpoint a ``best_model.pt`` may be anyone's, while alone it is taken as it is, so that reading it says
    what is wrong. Raises ValueError if there are several others.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path if _is_perforated(path) else None
    if not path.is_dir():
        return None
    if (path / "model.safetensors").exists():
        return path / "model.safetensors" if _is_perforated(path / "model.safetensors") else None
    best, has_others = path / BEST_MODEL, (path / "pytorch_model.bin").exists() or any(path.glob("*.index.json"))
    if best.is_file() and (not has_others or _is_perforated(best)):
        return best
    found = [file for file in sorted(path.glob("*.pt")) if file.is_file() and _is_perforated(file)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{path} holds {names} and no {BEST_MODEL}: name one of them.")
    return found[0] if found else None


def read_perforated(file: Path, activation: str | None = None) -> PerforatedCheckpoint:
    """Read either form. ``activation`` is needed if no configuration of PerforatedAI is beside ``file``.

    Raises ValueError for the clean form of one dendrite, which PerforatedAI saves without its output weights; for
    layers other than ``nn.Linear``; for an activation that is unknown, missing or contradicted; and for a damaged file.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            tied = json.loads((opened.metadata() or {}).get("weight_tying", "{}"))
    except SafetensorError as error:
        raise ValueError(f"{file} cannot be read ({error}): fetch or save it again.") from error
    tensors.update({name: tensors[first] for name, first in tied.items()})
    tensors.pop(TRACKER, None)
    if all(name.startswith("module.") for name in tensors):  # saved with its DDP wrapper
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}

    layers = {name: read_layer(file, name, part) for name, part in _split_layers(tensors).items()}
    counts = {name: layer["top"].shape[0] for name, layer in layers.items() if "top" in layer}
    if len(set(counts.values())) > 1 or (counts and len(counts) < sum(map(_is_head, layers))):
        raise ValueError(f"{file} has {counts} dendrites and none elsewhere, expected as many in every layer of the "
                         "head: train it with all of them perforated.")
    state_dict = {f"{name}.{part}": tensor for name, layer in layers.items() for part, tensor in layer.items()}
    # A module that PerforatedAI tracks without giving it dendrites is wrapped too.
    state_dict |= {name.replace(".main_module.", ".").removeprefix("main_module."): tensor
                   for name, tensor in tensors.items() if not any(name.startswith(f"{layer}.") for layer in layers)}
    num_dendrites = max(counts.values(), default=0)
    return PerforatedCheckpoint(state_dict, num_dendrites, _activation(file, activation) if num_dendrites else None)


def _is_perforated(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as opened:
            return any(name.endswith(CLEAN_MARK) for name in opened.keys())  # noqa: SIM118
    except SafetensorError:
        return False


def _is_head(name: str) -> bool:
    return not name.startswith("bert.")


def _split_layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of every perforated layer, under their names within it."""
    training = {name.removesuffix(TRAINING_MARK) for name in tensors if name.endswith(TRAINING_MARK)}
    clean = {name.removesuffix(CLEAN_MARK) for name in tensors
             if name.endswith(CLEAN_MARK) and not name.endswith(TRAINING_MARK)}
    return {layer: {name.removeprefix(f"{layer}."): tensor for name, tensor in tensors.items()
                    if name.startswith(f"{layer}.")} for layer in sorted(training | clean)}


def read_layer(file: Path, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a ``DendriticLinear`` from the ``tensors`` of one perforated layer; errors name ``file``."""
    if TRAINING_MARK[1:] in tensors:
        num_dendrites = int(tensors[TRAINING_MARK[1:]].item()) // 2
        linears = ["main_module", *(f"dendrite_module.layers.{k}" for k in range(num_dendrites))]
        skips = [f"dendrite_module.dendrites_to_dendrites.{k}" for k in range(1, num_dendrites)]
        skips += [f"dendrites_to_top.{num_dendrites - 1}"] * bool(num_dendrites)
    else:
        num_dendrites = int(tensors[CLEAN_MARK[1:]].item()) // 2
        linears = [f"layer_array.{k}" for k in (num_dendrites, *range(num_dendrites))]
        skips = sorted((key for key in tensors if key.startswith("skip_weights.")), key=_trailing_number)
        if len(skips) > num_dendrites and tensors[skips[0]].numel() == 0:
            skips = skips[1:]  # an older layout has an empty tensor for what would feed the first dendrite
        if num_dendrites == 1 and not skips:
            raise ValueError(f"{file} is the clean form of {name} with one dendrite, in which PerforatedAI does not "
                             f"keep the weights from dendrite to output: pass the training form, {BEST_MODEL}.")
    if any(f"{linear}.weight" not in tensors or tensors[f"{linear}.weight"].dim() != 2 for linear in linears):
        raise ValueError(f"{file} has dendrites on {name}, which is no nn.Linear: only heads of nn.Linear can be read.")
    if num_dendrites and name.startswith("bert."):
        raise ValueError(f"{file} has dendrites on {name}, but here only the head can have them: train with BERT's own "
                         "modules tracked instead of perforated.")
    weights = [tensors[f"{linear}.weight"] for linear in linears]
    biases = [tensors.get(f"{linear}.bias", weights[0].new_zeros(weights[0].shape[0])) for linear in linears]
    layer = {"weight": torch.cat(weights), "bias": torch.cat(biases)}
    if num_dendrites:
        shapes = [tuple(tensors[skip].shape) if skip in tensors else None for skip in skips]
        expected = [(k + 1, weights[0].shape[0]) for k in range(num_dendrites)]
        if shapes != expected:
            raise ValueError(f"{file} connects the dendrites of {name} by weights of the shapes {shapes}, expected "
                             f"{expected}: save it again.")
        lateral = weights[0].new_zeros(num_dendrites, num_dendrites, weights[0].shape[0])
        for k, skip in enumerate(skips[:-1], start=1):
            lateral[k, :k] = tensors[skip]
        layer |= {"lateral": lateral, "top": tensors[skips[-1]]}
    return layer


def _trailing_number(name: str) -> int:
    return int(name.rsplit(".", 1)[1])


def _activation(file: Path, given: str | None) -> str:
    """The activation that is given or that the configuration beside ``file`` names; it is never guessed."""
    if given is not None and given not in ACTIVATIONS:
        raise ValueError(f"activation is {given!r}, expected one of {', '.join(ACTIVATIONS)}.")
    for config in sorted(file.parent.glob("*_config.json")):
        named = json.loads(config.read_text(encoding="utf-8")).get("pai_forward_function")
        if named is None:
            continue
        found = re.split(r"\W", named)[-1]
        if given is None and found not in ACTIVATIONS:
            raise ValueError(f"{config} names {named} as the activation of the dendrites, expected one of "
                             f"{', '.join(ACTIVATIONS)}: pass activation if it is one of them under another name.")
        if given is not None and found in ACTIVATIONS and found != given:
            raise ValueError(f"activation is {given!r}, but {config} says {found!r}: remove the one that is wrong.")
        return given or found
    if given is None:
        raise ValueError(f"{file} does not say which activation its dendrites have, and no configuration of "
                         f"PerforatedAI's lies beside it: pass activation, one of {', '.join(ACTIVATIONS)}.")
    return given


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_perforated(
    model: DendriticBertPreTrainedModel, folder: str | os.PathLike[str], save_name: str | None = None
) -> Path:
    """Write the training form, with which PerforatedAI can continue a training, and return the file.

    ``folder`` gets ``best_model.pt``, the configuration of PerforatedAI with the activation (under its ``save_name``,
    which must be the name of the folder, its default), and our configuration. In the parent of the folder,
    ``UPA.load_system(network, save_name, "best_model", True)`` loads it into a network that has BERT's names and an
    ``nn.Linear`` for every dendritic layer, and that ``perforate_model`` has wrapped.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers = dendritic_layers(model)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.rsplit(".", 1)[0] not in layers}
    for name, layer in layers.items():
        tensors |= {f"{name}.{part}": tensor for part, tensor in _training_form(layer, is_token_head(name)).items()}
    tensors[TRACKER] = torch.tensor(list(_tracker_string(model.config.num_dendrites).encode()), dtype=torch.uint8)
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
              folder / BEST_MODEL)
    function = FORWARD_FUNCTIONS[model.config.dendrite_activation]
    (folder / f"{save_name or folder.name}_config.json").write_text(
        json.dumps({"pai_forward_function": function}, indent=2) + "\n")
    config = copy.copy(model.config)
    vars(config).pop("auto_map", None)  # the file that it names cannot read these weights
    config.save_pretrained(folder)
    return folder / BEST_MODEL


def is_token_head(name: str) -> bool:
    """Whether the input of the layer of that name is ``[B, L, H]``."""
    return name.split(".")[0] in TOKEN_HEADS


def _training_form(layer: DendriticLinear, is_token_head: bool) -> dict[str, Tensor]:
    """The tensors of one layer, with the state of PerforatedAI, without which it refuses the file."""
    num_dendrites, size = layer.num_dendrites, layer.out_features
    weights, biases = layer.weight.split(size), layer.bias.split(size)
    tensors = {"main_module.weight": weights[0], "main_module.bias": biases[0],
               "dendrite_module.parent_module.weight": weights[0], "dendrite_module.parent_module.bias": biases[0]}
    for k in range(num_dendrites):
        tensors[f"dendrite_module.layers.{k}.weight"] = weights[1 + k]
        tensors[f"dendrite_module.layers.{k}.bias"] = biases[1 + k]
        tensors[f"dendrites_to_top.{k}"] = layer.top[: k + 1]  # type: ignore[index]
        if num_dendrites > 1:
            lateral = layer.lateral[k, :k] if k else layer.weight.new_empty(0)  # type: ignore[index]
            tensors[f"dendrite_module.dendrites_to_dendrites.{k}"] = lateral
    if num_dendrites > 1:
        tensors["dendrite_module.dendrites_to_candidates.0"] = layer.weight.new_zeros(num_dendrites - 1, size)
    tensors["dendrite_module.num_cycles"] = torch.tensor([2.0 * num_dendrites])
    # The dimensions of an output: 0 is that of the channels, -1 are those of batch and token.
    dims = torch.tensor([-1, -1, 0] if is_token_head else [-1, 0])
    index = torch.tensor(len(dims) - 1)
    shape = [1] * (len(dims) - 1) + [size]
    node = {"this_node_index": index, "this_output_dimensions": dims}
    tensors |= {f"{place}{name}": value for place in ("", "dendrite_module.") for name, value in node.items()}
    values = {"this_node_index": index[None], "this_output_dimensions": dims, "initialized": torch.zeros(1),
              "current_d_init": torch.ones(1), "shape": torch.zeros(shape),
              "dendrite_storage_shape": torch.tensor(shape)}
    return tensors | {f"dendrite_module.dendrite_values.0.{name}": value for name, value in values.items()}


def _tracker_string(num_dendrites: int) -> str:
    """What the tracker of PerforatedAI must know; everything else keeps its initial value."""
    values = {"num_dendrites_added": num_dendrites, "num_dendrites_integrated": num_dendrites,
              "num_cycles": 2 * num_dendrites, "mode": "n"}
    return "".join(f"{name},{value}\n" for name, value in values.items())
