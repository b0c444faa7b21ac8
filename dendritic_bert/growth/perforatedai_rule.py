"""Growing dendrites with PerforatedAI's own tracker, and the way back from its modules to ``DendriticLinear``.

The library (3.2.9, open-source gradient mode) asks questions on a terminal, ends the process with status 0, opens a
debugger and writes to the current folder. Nothing of this leaves the module: what the library prints becomes the
message of a RuntimeError if it gives up, and its files go to a folder ``PAI`` inside a given one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pdb
import shutil
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..kernels.contract import ACTIVATIONS
from ..model.dendritic_linear import DendriticLinear, dendritic_layers
from ..model.perforatedai_checkpoint import BEST_MODEL, TRACKER, is_token_head, read_layer
from .rule import Outcome

SAVE_NAME = "PAI"
MAX_QUOTED = 300  # characters of its output in the message of an error; it can print a page


class PerforatedGrowth:
    """PerforatedAI's tracker on the head of ``model``, whose layers are the library's modules until ``finish``.

    The library keeps its settings and its tracker in global variables, so there can be only one of these at a time.

    Args:
        model: a module with ``DendriticLinear`` layers without dendrites; new dendrites have their activation.
        max_dendrites, patience, tries, maximize: as in ``Growth``.
        folder: where the library's ``PAI`` folder goes, with the best weights so far, its configuration, and at the end
            its graph and tables.

    Raises:
        ImportError: perforatedai is not installed.
        RuntimeError: the library gave up; the message quotes it.
        ValueError: the layers already have dendrites.
    """

    def __init__(
        self, model: nn.Module, max_dendrites: int, folder: str | os.PathLike[str], *, patience: int = 10,
        tries: int = 2, maximize: bool = True,
    ) -> None:
        if importlib.util.find_spec("perforatedai") is None:
            raise ImportError("perforatedai is not installed: pip install 'dendritic-bert[train]', or grow by the same "
                              "rule without it (--dendrite_schedule plain).")
        layers = dendritic_layers(model)
        if any(layer.num_dendrites for layer in layers.values()):
            raise ValueError("the layers of model have dendrites already: PerforatedAI starts from layers without.")
        self.model, self.folder, self.is_done = model, Path(folder).resolve(), False
        self.folder.mkdir(parents=True, exist_ok=True)
        self.activation = next(iter(layers.values())).activation
        with self._library():
            from perforatedai import globals_perforatedai, utils_perforatedai

            self._globals, self._utils = globals_perforatedai, utils_perforatedai
            globals_perforatedai.pc = globals_perforatedai.PAIConfig()  # without the settings of an earlier run
            device = next(model.parameters()).device
            for name, value in {
                "configuration_confirmed": True, "unwrapped_modules_confirmed": True, "silent": True,
                "testing_dendrite_capacity": False, "find_best_lr": False, "test_saves": False, "device": device,
                "use_cuda": device.type == "cuda", "max_dendrites": max_dendrites, "n_epochs_to_switch": patience,
                "max_dendrite_tries": tries, "pai_forward_function": ACTIVATIONS[self.activation],
                "d_type": next(model.parameters()).dtype, "module_names_to_perforate": [], "modules_to_perforate": [],
                "module_ids_to_perforate": [f".{name}" for name in layers],
            }.items():
                getattr(globals_perforatedai.pc, f"set_{name}")(value)
            for name, layer in layers.items():
                # Made without drawing random numbers, so that a seed gives what it gives without the library.
                linear = skip_init(nn.Linear, layer.in_features, layer.out_features).to(layer.weight)
                linear.load_state_dict(layer.state_dict())
                model.set_submodule(name, linear)
            utils_perforatedai.perforate_model(
                model, save_name=SAVE_NAME, making_graphs=False, maximizing_score=maximize)
        self._modules: dict[str, Any] = {name: model.get_submodule(name) for name in layers}
        for name, module in self._modules.items():
            if is_token_head(name):
                module.set_this_output_dimensions([-1, -1, 0])
        self._clean_up()

    @property
    def num_dendrites(self) -> int:
        """Dendrites of each output at present."""
        return len(next(iter(self._modules.values())).dendrite_module.layers)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """A context for the training loop: the library's hooks end the process, with status 0, if shapes differ."""
        try:
            yield
        except SystemExit as end:
            raise RuntimeError(f"PerforatedAI ended the training ({end!r}): what it printed says why.") from end

    @contextlib.contextmanager
    def _library(self) -> Iterator[None]:
        """A context for every call into the library."""
        printed, folder, set_trace = io.StringIO(), os.getcwd(), pdb.set_trace

        def refuse(*_: Any, **__: Any) -> None:
            raise RuntimeError("it opened a debugger")

        os.chdir(self.folder)
        pdb.set_trace = refuse  # type: ignore[assignment]
        try:
            with contextlib.redirect_stdout(printed), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (Exception, SystemExit) as error:
            said = textwrap.shorten(printed.getvalue(), MAX_QUOTED, placeholder=" ...")
            raise RuntimeError(f"PerforatedAI gave up ({error!r}): {said}") from error
        finally:
            os.chdir(folder)
            pdb.set_trace = set_trace

    def add_score(self, score: float, stage_is_over: bool = False, optimizer: Any = None) -> Outcome:
        """Take the score of one more epoch, as ``Growth.add_score`` does; ``optimizer`` is the one in use."""
        tracker = self._globals.pai_tracker
        with self._library():
            tracker.set_optimizer_instance(optimizer)
            _, restructured, self.is_done = tracker.add_validation_score(score, self.model, stage_is_over)
        self._clean_up()
        return Outcome.DONE if self.is_done else Outcome.GREW if restructured else Outcome.UNCHANGED

    def _clean_up(self) -> None:
        """Let only live parameters have a gradient, as DDP stops at a parameter without one, and remove the library's
        string from the weights, as its length changes."""
        self.model._buffers.pop(TRACKER, None)
        for module in self._modules.values():
            module.requires_grad_(False)
            dendrites = module.dendrite_module
            live = [*module.main_module.parameters(), *dendrites.layers.parameters(),
                    *list(dendrites.dendrites_to_dendrites)[1:], *list(module.dendrites_to_top)[-1:]]
            for parameter in live:
                parameter.requires_grad_(True)

    def finish(self) -> None:
        """Restore the best weights, draw the library's graph, and turn its modules into ``DendriticLinear`` layers."""
        best = self.folder / SAVE_NAME / BEST_MODEL
        with self._library():
            if not self.is_done and best.exists():
                self._utils.load_system(self.model, SAVE_NAME, best.stem, switch_call=True)
            self._globals.pai_tracker.making_graphs = True  # once, as each takes a second
            self._globals.pai_tracker.save_graphs()
        self.is_done = True
        self._clean_up()
        for file in (self.folder / SAVE_NAME).glob("switch_*.pt"):
            file.unlink(missing_ok=True)
        count = self.num_dendrites
        for name, module in self._modules.items():
            state = read_layer(best, name, module.state_dict())
            layer = DendriticLinear(module.main_module.in_features, module.main_module.out_features, count,
                                    self.activation).to(state["weight"])
            layer.load_state_dict(state)
            self.model.set_submodule(name, layer)
        config: Any = getattr(self.model, "config", None)
        if config is not None:
            config.num_dendrites = count

    def save(self, folder: Path) -> None:
        """Write to ``folder`` what ``load`` needs beside the model's own weights."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / SAVE_NAME / BEST_MODEL, folder / BEST_MODEL)
        text = self._globals.pai_tracker.to_string()
        (folder / "tracker.txt").write_text(f"{self.is_done}\n{text}", encoding="utf-8")

    def load(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Continue from what ``save`` wrote to ``folder``; ``weights`` are those that the model had then."""
        is_done, text = (folder / "tracker.txt").read_text(encoding="utf-8").split("\n", 1)
        shutil.copyfile(folder / BEST_MODEL, self.folder / SAVE_NAME / BEST_MODEL)
        state = weights | {TRACKER: load_file(folder / BEST_MODEL)[TRACKER]}  # here, as _library leaves this directory
        tracker = self._globals.pai_tracker
        with self._library():
            self._utils.load_net_from_dict(self.model, state)
            tracker.reset_module_vector(self.model, True)
            tracker.from_string(text)
        self.is_done = is_done == "True"
        self._clean_up()
