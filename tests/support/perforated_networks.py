"""Networks as a user of PerforatedAI writes them, with which the tests compare our reading and growing."""

import contextlib
import warnings
from pathlib import Path

import torch
from torch import nn
from transformers import BertConfig, BertModel

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "gelu": nn.functional.gelu}
CONFIG = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 64, "max_position_embeddings": 20, "num_labels": 3}


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = BertModel(config).embeddings


class Dsn(nn.Module):
    """BERT's embeddings as transformers computes them, averaged over the mask, and a head of ``nn.Linear``."""

    def __init__(self, head_hidden: int | None = None, num_labels: int = 3, **config):
        super().__init__()
        config = BertConfig(**CONFIG | {"num_labels": num_labels} | config)
        self.bert = Embeddings(config)
        size = config.hidden_size
        self.classifier = nn.Linear(size, num_labels) if head_hidden is None else nn.Sequential(
            nn.Linear(size, head_hidden), nn.GELU(), nn.Linear(head_hidden, num_labels))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask[..., None]
        return self.classifier((self.bert.embeddings(input_ids) * mask).sum(dim=1) / mask.sum(dim=1))


class TokenDsn(nn.Module):
    """The same on every token, for question answering."""

    def __init__(self, head_hidden: int | None = None):
        super().__init__()
        dsn = Dsn(head_hidden, num_labels=2)
        self.bert, self.qa_outputs = dsn.bert, dsn.classifier

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.qa_outputs(self.bert.embeddings(input_ids))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(9) < torch.tensor([9, 3, 1, 5])[:, None]).long()
    return {"input_ids": torch.randint(50, mask.shape, generator=generator), "attention_mask": mask}


class PerforatedAI:
    """The library with the settings of its import, told to ask no questions; it writes to the current folder."""

    def __init__(self):
        from perforatedai import globals_perforatedai, network_perforatedai, utils_perforatedai

        self.globals, self.utils, self.networks = globals_perforatedai, utils_perforatedai, network_perforatedai
        settings = self.settings = globals_perforatedai.pc
        settings.set_configuration_confirmed(True)
        settings.set_unwrapped_modules_confirmed(True)
        settings.set_testing_dendrite_capacity(False)
        settings.set_silent(True)

    @property
    def tracker(self):
        return self.globals.pai_tracker

    def perforate(self, network: nn.Module, activation: str = "sigmoid", name: str = "PAI") -> nn.Module:
        self.settings.set_pai_forward_function(ACTIVATIONS[activation])
        with contextlib.redirect_stdout(None), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return self.utils.perforate_model(network, save_name=name, making_graphs=False)

    def grown(self, num_dendrites: int, activation: str = "sigmoid", **network) -> nn.Module:
        """A network in its training form, random weights everywhere."""
        network = self.perforate(Dsn(**network).eval(), activation)
        network(**batch()).sum().backward()  # it learns the shapes from a backward pass
        for module in self.utils.get_pai_modules(network, 0):
            # Each dendrite takes two cycles: one that grows it, one that trains it.
            self.utils.simulate_cycles(module, 2 * num_dendrites, True)
        self.tracker.member_vars["num_dendrites_added"] = num_dendrites
        torch.manual_seed(num_dendrites)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        network.zero_grad()
        return network

    def save(self, network: nn.Module, name: str = "best_model", folder: str = "PAI") -> Path:
        """The training form, with BERT's configuration beside it."""
        BertConfig(**CONFIG).save_pretrained(folder)
        self.utils.save_system(network, folder, name)
        return Path(folder, f"{name}.pt").resolve()

    def save_clean(self, network: nn.Module, folder: str = "PAI") -> Path:
        self.save(network)
        Path(folder, "best_model.pt").unlink()
        self.utils.save_pai_net(network, folder, "best_model")
        return Path(folder, "best_model_pai.pt").resolve()
