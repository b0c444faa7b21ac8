"""What the models share: inference tables that follow the parameters, growing dendrites, loading and saving."""

import os
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BertPreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.utils import logging

from ..kernels.contract import TABLE_DTYPES
from ..kernels.prepare import prepare_head, prepare_table
from ..kernels.reference import pool_ref, token_places
from .configuration import DendriticBertConfig
from .dendritic_linear import DendriticLinear, DendriticMLP, dendritic_layers
from .embedding_modules import Parts, are_plain, parts_of
from .inference_tables import Prepared, Tables
from .perforatedai_checkpoint import find_perforated, read_perforated

# Below "transformers", so that transformers.logging.set_verbosity_*() rules it too.
logger = logging.get_logger(f"transformers.{__name__}")
Model = TypeVar("Model", bound="DendriticBertPreTrainedModel")
_IGNORE_MISFITS: ContextVar[bool] = ContextVar("ignore_mismatched_sizes", default=False)


class DendriticBertPreTrainedModel(BertPreTrainedModel):
    """``self.bert``, a ``DsnBody`` or BERT, under a dendritic head, the attribute that ``head_name`` names.

    The head is a ``DendriticLinear``, or with ``config.head_hidden`` a ``DendriticMLP``.
    """

    config: DendriticBertConfig
    bert: Any
    head_name: str
    pooling: str = "mean_masked"
    accepts_loss_kwargs = False  # the Trainer scales the loss of accumulated steps, as of any model that does not

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self._no_split_modules = {"BertEmbeddings", "BertLayer"}  # device_map moves them as a whole
        self._fusable = config.dsn and config.head_hidden is None
        self._table_dtype: torch.dtype | None = None
        self._prepared: Prepared | None = None
        self._had_gradients = False

    def _make_head(self) -> DendriticLinear | DendriticMLP:
        config = self.config
        num_labels: Any = config.num_labels  # declared optional, but a configuration always has it
        dendrites = (config.num_dendrites, config.dendrite_activation)
        if config.head_hidden is None:
            return DendriticLinear(config.hidden_size, num_labels, *dendrites)
        return DendriticMLP(config.hidden_size, config.head_hidden, num_labels, *dendrites, ACT2FN[config.hidden_act])

    def prepare(self: Model, dtype: torch.dtype | None = None) -> Model:
        """Make the inference tables now, and store the word table as ``dtype`` from now on; returns the model.

        ``dtype`` is float32, bfloat16, float16 or int8 (one scale a row); None is that of the parameters. Nothing of it
        is saved.

        Calling this is optional. Tables follow the parameters: every step of an optimizer, gradients and writes that
        torch counts are seen at once, and on a CPU what is written past torch (``.data``, numpy, another process) too,
        since the parameters are compared with a copy. In a loop of calls that comparing them would slow down by more
        than a fiftieth only a sample is, and a write to a few numbers may show as many milliseconds late as 50
        comparisons take (2 for a table of 1 MB, 50 for one of 16 MB). On a GPU nothing is compared, which would have to
        be waited for: call this after writing through ``.data`` there.

        Raises ValueError where ``config.dsn`` is False, the head has a hidden layer, or there is none.
        """
        if not self.head_name:
            raise ValueError("prepare() needs a model with a head: load one with AutoModelForSequenceClassification.")
        if not self.config.dsn:
            raise ValueError("prepare() needs a DSN, but dsn is False: BERT's encoder has no inference tables.")
        if self.config.head_hidden is not None:
            raise ValueError(f"prepare() needs a head of one layer, but head_hidden is {self.config.head_hidden}: a "
                             "head of two layers runs in PyTorch and has no inference tables.")
        if dtype is not None and dtype not in TABLE_DTYPES:
            raise ValueError(f"dtype is {dtype}, a table is stored as one of {', '.join(map(str, TABLE_DTYPES))}.")
        self._table_dtype = dtype
        self._prepared = self._prepare()
        return self

    def resize_dendrites(self, num_dendrites: int) -> None:
        """Give every layer of the head this many dendrites; see ``DendriticLinear.resize``."""
        for layer in dendritic_layers(self).values():
            layer.resize(num_dendrites)
        self.config.num_dendrites = num_dendrites

    def add_dendrite(self) -> None:
        """Grow one dendrite for every output of the head; see ``DendriticLinear.add_dendrite``."""
        self.resize_dendrites(self.config.num_dendrites + 1)

    def _embedding_parts(self) -> Parts:
        """The modules that ``ops.embed_pool`` stands for, with their classes; a classifier has dropout of its own."""
        dropout: Any = self._modules.get("dropout")
        return parts_of(self.bert) + ([] if dropout is None else [(dropout, nn.Dropout)])

    def _prepare(self) -> Prepared | None:
        """None where a module does more than its weights say, or where hidden states are asked for."""
        layer = getattr(self, self.head_name)
        parts: Parts = [*self._embedding_parts(), (layer, DendriticLinear)]
        dropped = any(isinstance(module, nn.Dropout) and module.training for module, _ in parts)
        if dropped or self.config.output_hidden_states or not are_plain(parts):
            return None
        embeddings = self.bert.embeddings
        words, norm = embeddings.word_embeddings.weight, embeddings.LayerNorm
        prepared = Prepared(self, [module for module, _ in parts], self._had_gradients)
        if self._table_dtype is not None or words.dtype != torch.float64:  # a table is float32 at most
            table = prepare_table(
                words, embeddings.position_embeddings.weight, embeddings.token_type_embeddings.weight, norm.eps,
                self._table_dtype,
            )
            head = prepare_head(
                norm.weight, norm.bias, layer.weight, layer.bias, layer.lateral, layer.top, layer.activation
            )
            prepared.tables = Tables(table, head)
        return prepared

    def _current_tables(self) -> Tables | None:
        """The inference tables, made anew where something changed; None where the fused op does not serve."""
        if not self._fusable or torch.compiler.is_compiling() or torch.jit.is_tracing() or (
                torch._C._are_functorch_transforms_active()):
            return None
        if torch.is_grad_enabled():
            # What the gradients are for will change the parameters, and may leave no trace.
            if not self._had_gradients or self._prepared is not None:
                self._had_gradients, self._prepared = True, None
            return None
        if self.training:
            return None
        prepared = self._prepared
        if prepared is None or not prepared.is_current():
            prepared = self._prepared = self._prepare()
        return None if prepared is None else prepared.tables

    def _embed(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        cu_seqlens: Tensor | None,
        tokens: dict[str, Tensor | None],
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        **kwargs: Any,
    ) -> Any:
        """The output of ``self.bert``, a DSN's or BERT's, called as the modules that it is made of."""
        if output_attentions is not None:
            kwargs["output_attentions"] = output_attentions  # BERT takes None for False, not for the configuration's
        if self.config.dsn:
            kwargs["cu_seqlens"] = cu_seqlens
        elif cu_seqlens is not None:
            raise ValueError("cu_seqlens is given, but dsn is False: BERT's encoder takes [B, L] and attention_mask.")
        return self.bert(input_ids=input_ids, inputs_embeds=inputs_embeds, output_hidden_states=output_hidden_states,
                         **tokens, **kwargs | {"return_dict": True})

    def _pool(self, output: Any, attention_mask: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
        """``[B, H]`` of what ``_embed`` returned."""
        x = output.last_hidden_state
        if self.config.dsn:
            pooling = self.pooling
        elif self.config.encoder_pooling == "cls":
            return output.pooler_output
        else:
            pooling = "mean_masked"
        row, _ = token_places(x[..., 0], cu_seqlens)
        wide = torch.promote_types(x.dtype, torch.float32)
        return pool_ref(x.to(wide), row, attention_mask, cu_seqlens, pooling).to(x.dtype)

    def train(self: Model, mode: bool = True) -> Model:
        # Some training code writes through .data, which counts no version.
        if mode != self.training:
            self._prepared = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # .to(), .half(), .cuda(), ...: what is freed may come back at the same address.
        self._prepared = None
        return super()._apply(fn, recurse)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """As in BERT. A DSN has no layers to compute a second time: it says so and goes on."""
        if self.config.dsn:
            logger.warning("gradient_checkpointing_enable() has no effect: a DSN has no layers to compute again.")
        else:
            super().gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        if not self.config.dsn:
            super().gradient_checkpointing_disable()

    def _replicate_for_data_parallel(self) -> Any:
        # A replica lives for one call on another device: tables would be made anew each time.
        replica = super()._replicate_for_data_parallel()
        replica._fusable, replica._prepared = False, None
        return replica

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}

    def get_input_embeddings(self) -> nn.Module:
        return self.bert.embeddings.word_embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.bert.embeddings.word_embeddings = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DendriticLinear):
            fresh = DendriticLinear(
                module.in_features, module.out_features, module.num_dendrites, module.activation
            ).to(module.weight)
            fresh.reset_parameters(std=self.config.initializer_range)
            values = fresh.state_dict()
            for name, tensor in module.state_dict(keep_vars=True).items():
                init.copy_(tensor, values[name])  # leaves alone what a checkpoint has filled

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint of this model, or make a DSN of a BERT checkpoint (see the transformers documentation).

        Of BERT the embeddings are kept (with ``dsn=False`` the encoder too), and the head where its shape fits;
        one line says what was kept, dropped and newly initialised. Keyword arguments that are fields of
        ``DendriticBertConfig`` override the checkpoint's.

        A file of PerforatedAI's, or a folder with one, is read too. ``config`` is then a configuration or the path of
        one, and the ``config.json`` beside the file where there is none; ``dendrite_activation`` is needed where no
        configuration of PerforatedAI's says it. What the weights show (N, labels, hidden layer, encoder) goes by them.

        Raises ValueError for a checkpoint of another architecture, one without BERT's embeddings, one that does not fit
        its configuration (unless ``ignore_mismatched_sizes``), or one that is damaged; and as
        ``perforated.read_perforated`` does.
        """
        token = _IGNORE_MISFITS.set(bool(kwargs.get("ignore_mismatched_sizes")))
        try:
            name = pretrained_model_name_or_path
            file = None if name is None or kwargs.get("state_dict") is not None else find_perforated(name)
            if file is not None:
                config, state_dict, kwargs = _read_perforated_model(file, **kwargs)
                model = super().from_pretrained(None, *args, config=config, state_dict=state_dict, **kwargs)
                model.config._name_or_path = str(name)
                return model
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise ValueError(
                f"the weights of {pretrained_model_name_or_path} cannot be read ({error}): fetch or save them again."
            ) from error
        finally:
            _IGNORE_MISFITS.reset(token)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers, but with today's names even where the checkpoint it came from said gamma and beta."""
        super().save_pretrained(save_directory, *args, **{"save_original_format": False} | kwargs)

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Called by transformers before it reports on a checkpoint: put one line in the place of its long table."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        lost = sorted(key for key in loading_info.missing_keys if key.startswith("bert.embeddings."))
        if lost:
            for keys in (loading_info.missing_keys, loading_info.unexpected_keys, loading_info.mismatched_keys):
                keys.clear()
            raise ValueError(f"{self.name_or_path} lacks {lost[0]}: pass a checkpoint of BERT or of this model.")
        dropped, fresh = _parts(loading_info.unexpected_keys), _parts(loading_info.missing_keys)
        if "encoder" in dropped:  # it is BERT's, and so is the head: one that does not fit is no error
            misfits = {entry for entry in loading_info.mismatched_keys if entry[0].startswith(f"{self.head_name}.")}
            loading_info.mismatched_keys -= misfits
            fresh |= _parts(entry[0] for entry in misfits)
        loading_info.unexpected_keys.clear()
        loading_info.missing_keys.clear()
        if loading_info.mismatched_keys and not _IGNORE_MISFITS.get():
            weight, found, expected = min(loading_info.mismatched_keys)
            loading_info.mismatched_keys.clear()
            raise ValueError(f"{self.name_or_path} has {weight} of shape {list(found)}, its configuration asks for "
                             f"{list(expected)}: pass the configuration it was saved with.")
        if dropped or fresh:
            named = (_parts(self.state_dict()) - fresh, dropped, fresh)
            kept_line, dropped_line, fresh_line = (", ".join(sorted(parts)) or "nothing" for parts in named)
            logger.warning(
                f"{self.name_or_path or 'the checkpoint'}: kept {kept_line}; dropped {dropped_line}; "
                f"newly initialised {fresh_line}{' (train it before use)' if fresh else ''}."
            )


def _read_perforated_model(
    file: Path, config: Any = None, dendrite_activation: str | None = None, **kwargs: Any
) -> tuple[DendriticBertConfig, dict[str, Tensor], dict[str, Any]]:
    """Configuration, weights, and the arguments that are no fields of the configuration."""
    checkpoint = read_perforated(file, dendrite_activation)
    heads = {name: weight for name, weight in checkpoint.state_dict.items()
             if not name.startswith("bert.") and name.endswith(".weight")}
    rows = 1 + checkpoint.num_dendrites
    shown: dict[str, Any] = {
        "dsn": not any(name.startswith("bert.encoder.") for name in checkpoint.state_dict),
        # The names of a head with a hidden layer are those of an nn.Sequential.
        "head_hidden": next((weight.shape[0] // rows for name, weight in heads.items() if name.endswith(".0.weight")),
                            None),
    }
    if checkpoint.activation is not None:
        shown["dendrite_activation"] = checkpoint.activation
    source = file.parent / "config.json" if config is None else config
    if not isinstance(source, DendriticBertConfig):
        if not os.path.isfile(source):
            raise ValueError(f"{source} is not there, and {file} alone does not make a model: pass config, the path of "
                             "the config.json of the BERT it was trained from.")
        source, kwargs = DendriticBertConfig.from_pretrained(source, return_unused_kwargs=True, **shown | kwargs)
    fields = source.to_dict() | shown | {"num_dendrites": checkpoint.num_dendrites}
    labels = list(heads.values())[-1].shape[0] // rows if heads else source.num_labels
    if labels != source.num_labels:
        fields = {name: value for name, value in fields.items() if name not in ("id2label", "label2id")}
        fields["num_labels"] = labels
    return DendriticBertConfig(**fields), checkpoint.state_dict, kwargs


def _parts(names: Iterable[str]) -> set[str]:
    """The parts of BERT that weights belong to: embeddings, encoder, pooler, cls, classifier, ..."""
    return {name.removeprefix("bert.").split(".")[0] for name in names}
