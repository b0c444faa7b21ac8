"""The base class of the models: inference tables that follow the parameters, growing dendrites, loading and saving."""

import copy
import os
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BertPreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.utils import logging

from ..atomic_write import atomic_path
from ..embedded_model import EMBEDDED_MODEL
from ..kernels.reference import pool_ref, token_places
from .configuration import DendriticBertConfig
from .dendritic_linear import DendriticLinear, DendriticMLP, resize_dendrites
from .embedding_modules import Parts, are_plain, parts_of
from .files import PROJECTION, REMOTE_CODE, REMOTE_CODE_FILE
from .inference_tables import InferenceTables, WindowTables, make_tables, table_dtypes
from .packed_encoder import HEAD, WORD_SCALE, packed_folder, read_encoder
from .perforatedai_checkpoint import find_perforated, read_perforated
from .table_cache import TableCache
from .window_modules import TokenGate, WindowDendrites

# A logger below "transformers", so that transformers.logging.set_verbosity_*() governs it too.
logger = logging.get_logger(f"transformers.{__name__}")
Model = TypeVar("Model", bound="DendriticBertPreTrainedModel")
_IGNORE_MISFITS: ContextVar[bool] = ContextVar("ignore_mismatched_sizes", default=False)
_ADDED_TO_WORDS = ("bert.embeddings.LayerNorm.", "bert.embeddings.position_embeddings.")
_OF_A_HEAD = {"dendrite_activation", "head_hidden", "id2label", "label2id", "num_dendrites", "num_labels",
              "problem_type"}
# Where a checkpoint is downloaded from.
_SOURCES = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class DendriticBertPreTrainedModel(BertPreTrainedModel):
    """``self.bert``, which is a ``DsnBody`` or a ``BertModel``, under a dendritic head.

    The head is the attribute that ``head_name`` names: a ``DendriticLinear``, or a ``DendriticMLP`` if
    ``config.head_hidden`` is set.
    """

    config: DendriticBertConfig
    bert: Any
    head_name: str
    pooling: str = "mean_masked"
    is_pooled = True  # whether the head reads pooled rows, not tokens
    accepts_loss_kwargs = False  # so that the Trainer itself scales the loss of accumulated steps

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        # device_map moves them as a whole
        self._no_split_modules = {"BertEmbeddings", "BertLayer", "PositionFreeEmbeddings", "WindowDendrites"}
        self._fusable = bool(table_dtypes(config, self.is_pooled))  # whether inference is one op on tables
        self._table_dtype: torch.dtype | None = None
        self._table_cache: TableCache | None = None
        self._had_gradients = False

    @property
    def _is_one_op(self) -> bool:
        """Whether one op pools ids, or gives the logits of tokens; otherwise PyTorch's modules are called."""
        return self.config.pools_embeddings or (self.config.pools_windows and self.is_pooled)

    def _make_head(self) -> DendriticLinear | DendriticMLP:
        config = self.config
        num_labels: Any = config.num_labels  # declared optional, but always set
        dendrites = (config.num_dendrites, config.dendrite_activation)
        if config.head_hidden is None:
            return DendriticLinear(config.pooled_size, num_labels, *dendrites)
        return DendriticMLP(config.pooled_size, config.head_hidden, num_labels, *dendrites, ACT2FN[config.hidden_act])

    def prepare(self: Model, dtype: torch.dtype | None = None) -> Model:
        """Make the inference tables now, and store the word table as ``dtype`` from now on. Returns the model.

        ``dtype`` is float32, bfloat16, float16 or int8 (with one scale per row); None is the dtype of the parameters.
        Without positions it is float32, bfloat16 or, where there are window layers, int8: the dtype of their products,
        and None is float32 unless the parameters are bfloat16. The tables are never saved.

        Calling this is optional, since the tables follow the parameters. Every step of an optimizer, every gradient and
        every write that torch counts is noticed at once. On a CPU a write past torch (through ``.data``, by numpy, by
        another process) is noticed too, because the parameters are compared with a copy. If comparing all of them would
        slow down a loop of calls by more than a fiftieth, only a sample is compared, and a write to a few numbers may
        be noticed late, by the time that 50 comparisons take (2 ms for a table of 1 MB, 50 ms for one of 16 MB). On a
        GPU nothing is compared, because every call would have to wait for it: call this after writing through
        ``.data``.

        Raises ValueError if ``config.dsn`` is False, if the head has a hidden layer, if no op computes this form of
        a model, or if there is no head.
        """
        if not self.head_name:
            raise ValueError("prepare() needs a model with a head: load one with AutoModelForSequenceClassification.")
        if not self.config.dsn:
            raise ValueError("prepare() needs a DSN, but dsn is False: BERT's encoder has no inference tables.")
        if self.config.head_hidden is not None:
            raise ValueError(f"prepare() needs a head of one layer, but head_hidden is {self.config.head_hidden}: a "
                             "head of two layers runs in PyTorch and has no inference tables.")
        if not self._fusable:
            remedy = ("a gate needs max_position_embeddings=0" if self.config.pooling == "gated_mean"
                      else "embeddings without LayerNorm are pooled by \"mean_masked\" or \"gated_mean\"")
            raise ValueError(f"prepare() needs a form that one op computes, but pooling is {self.config.pooling!r}, "
                             f"embedding_norm {self.config.embedding_norm!r} and max_position_embeddings "
                             f"{self.config.max_position_embeddings}, which runs in PyTorch: {remedy}.")
        dtypes = table_dtypes(self.config, self.is_pooled)
        if dtype is not None and dtype not in dtypes:
            raise ValueError(f"dtype is {dtype}, a table is stored as one of {', '.join(map(str, dtypes))}.")
        self._table_dtype = dtype
        self._table_cache = self._make_tables()
        return self

    def resize_dendrites(self, num_dendrites: int) -> None:
        """Give every layer of the head this many dendrites (see ``DendriticLinear.resize``)."""
        resize_dendrites(self, num_dendrites)

    def add_dendrite(self) -> None:
        """Grow one dendrite for every output of the head (see ``DendriticLinear.add_dendrite``)."""
        self.resize_dendrites(self.config.num_dendrites + 1)

    def _embedding_parts(self) -> Parts:
        """The modules that ``ops.embed_pool`` stands for, a classifier's own dropout included, with their classes."""
        dropout: Any = self._modules.get("dropout")
        return parts_of(self.bert) + ([] if dropout is None else [(dropout, nn.Dropout)])

    def _make_tables(self) -> TableCache | None:
        """None if a module does more than its weights say, or if the configuration asks for hidden states."""
        layer = getattr(self, self.head_name)
        parts: Parts = [*self._embedding_parts(), (layer, DendriticLinear)]
        dropped = any(isinstance(module, nn.Dropout) and module.training for module, _ in parts)
        if dropped or self.config.output_hidden_states or not are_plain(parts):
            return None
        cache = TableCache(self, [module for module, _ in parts], self._had_gradients)
        embeddings = self.bert.embeddings
        words = embeddings.word_embeddings.weight
        # A table is float32 at most, and parameters without numbers, on "meta", give none.
        if not words.is_meta and (self._table_dtype is not None or words.dtype != torch.float64):
            eps = getattr(embeddings.LayerNorm, "eps", 0.0)
            cache.tables = make_tables(self.config, self.state_dict(), self.head_name, eps, layer.activation,
                                       self._table_dtype)
        return cache

    def _current_tables(self) -> InferenceTables | WindowTables | None:
        """The inference tables, made again if something has changed; None if the fused op cannot serve."""
        if not self._fusable or torch.compiler.is_compiling() or torch.jit.is_tracing() or (
                torch._C._are_functorch_transforms_active()):
            return None
        if torch.is_grad_enabled():
            # Whoever asks for gradients will change the parameters with them, and that may leave no trace.
            if not self._had_gradients or self._table_cache is not None:
                self._had_gradients, self._table_cache = True, None
            return None
        if self.training:
            return None
        cache = self._table_cache
        if cache is None or not cache.is_current():
            cache = self._table_cache = self._make_tables()
        return None if cache is None else cache.tables

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
        """The output of ``self.bert``, computed by PyTorch's modules."""
        if output_attentions is not None:
            kwargs["output_attentions"] = output_attentions  # BERT reads None as False, not as "see the configuration"
        if self.config.dsn:
            kwargs["cu_seqlens"] = cu_seqlens
        elif cu_seqlens is not None:
            raise ValueError("cu_seqlens is given, but dsn is False: BERT's encoder takes [B, L] and attention_mask.")
        return self.bert(input_ids=input_ids, inputs_embeds=inputs_embeds, output_hidden_states=output_hidden_states,
                         **tokens, **kwargs | {"return_dict": True})

    def _pool(self, output: Any, input_ids: Tensor | None, attention_mask: Tensor | None,
              cu_seqlens: Tensor | None) -> Tensor:
        """Pool the output of ``_embed`` to ``[B, H]``, or with window layers ``[B, H + M]``."""
        x = output.last_hidden_state
        if self.config.dsn:
            return self.bert.pool(x, input_ids, attention_mask, cu_seqlens, self.pooling)
        if self.config.encoder_pooling == "cls":
            return output.pooler_output
        row, _ = token_places(x[..., 0], cu_seqlens)
        wide = torch.promote_types(x.dtype, torch.float32)
        return pool_ref(x.to(wide), row, attention_mask, cu_seqlens, "mean_masked").to(x.dtype)

    def train(self: Model, mode: bool = True) -> Model:
        # Some training code writes through .data, which counts no version.
        if mode != self.training:
            self._table_cache = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # .to(), .half(), .cuda(), ...: memory that is freed may be used again at the same address.
        self._table_cache = None
        return super()._apply(fn, recurse)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """As in BERT. A DSN, which has no layers to compute a second time, only says so."""
        if self.config.dsn:
            logger.warning("gradient_checkpointing_enable() has no effect: a DSN has no layers to compute again.")
        else:
            super().gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        if not self.config.dsn:
            super().gradient_checkpointing_disable()

    def _replicate_for_data_parallel(self) -> Any:
        # A replica lives for one call on another device, so that tables would be made in every call.
        replica = super()._replicate_for_data_parallel()
        replica._fusable, replica._table_cache = False, None
        return replica

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table_cache": None}

    def get_input_embeddings(self) -> nn.Module:
        return self.bert.embeddings.word_embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.bert.embeddings.word_embeddings = value

    @torch.no_grad()
    def _resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; new words get the gate of zeros, that of words that count as others do."""
        embeddings = super()._resize_token_embeddings(*args, **kwargs)
        gate = getattr(self.bert, "gate", None)
        if gate is not None:
            old, kept = gate.word_bias, min(gate.word_bias.shape[0], embeddings.num_embeddings)
            bias = old.new_zeros(embeddings.num_embeddings)
            bias[:kept] = old[:kept]
            gate.word_bias = nn.Parameter(bias, requires_grad=old.requires_grad)
        return embeddings

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
                init.copy_(tensor, values[name])  # which skips a tensor that a checkpoint has filled
        elif isinstance(module, WindowDendrites):
            input_std, std = module.initial_std()
            init.normal_(module.input_weight, std=input_std)
            init.normal_(module.weight, std=std)
            init.zeros_(module.bias)
        elif isinstance(module, TokenGate):
            init.zeros_(module.weight)
            init.zeros_(module.word_bias)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint of this model, or make a DSN of a BERT checkpoint (see the transformers documentation).

        BERT's embeddings are kept, with ``dsn=False`` its encoder too, and its head if the shape fits; one line of the
        log says what was kept, dropped and newly initialised. Keyword arguments that are fields of
        ``DendriticBertConfig`` override those of the checkpoint. Where they ask for window layers, or for a model
        without positions, the mean of the checkpoint's positions is added to every word.

        The head of a packed encoder (``packed_encoder``) is its projection, or a new one where a field of the head is
        not as the encoder's configuration has it. ``window_layers=0, window_dendrites=0`` reads the gated bag of words
        of a folder with both.

        A file of PerforatedAI, or a folder with one, can be read too. Then ``config`` is a configuration or the path of
        one, by default the ``config.json`` beside the file, and ``dendrite_activation`` is needed if no configuration
        of PerforatedAI says it. What the weights show (N, labels, hidden layer, encoder) overrides the configuration;
        ``num_labels`` and ``num_dendrites`` are passed as they are there, or not at all.

        Raises ValueError for a checkpoint of another architecture, one without BERT's embeddings, one that does not fit
        its configuration (unless ``ignore_mismatched_sizes``), and one that is damaged; and what
        ``perforatedai_checkpoint.read_perforated`` raises.
        """
        token = _IGNORE_MISFITS.set(bool(kwargs.get("ignore_mismatched_sizes")))
        try:
            name = pretrained_model_name_or_path
            read = None if name is None or kwargs.get("state_dict") is not None else _read_other_form(name, **kwargs)
            if read is not None:
                of_form, state_dict, kwargs = read
                loaded = super().from_pretrained(None, *args, config=of_form, state_dict=state_dict, **kwargs)
                _model_of(loaded).config._name_or_path = str(name)
                return loaded
            config, kwargs = _config_with_positions(name, **kwargs)
            if config is None:
                return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
            _model_of(loaded)._drop_positions()
            return loaded
        except SafetensorError as error:
            raise ValueError(
                f"the weights of {pretrained_model_name_or_path} cannot be read ({error}): fetch or save them again."
            ) from error
        finally:
            _IGNORE_MISFITS.reset(token)

    def _drop_positions(self) -> None:
        self.config.max_position_embeddings = 0
        del self.config.drops_positions
        self.bert.drop_positions(self.config)
        self._fusable = bool(table_dtypes(self.config, self.is_pooled))

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers, with a file of plain PyTorch beside the weights, which ``trust_remote_code=True`` loads
        where this package is not installed. The weights have today's names, also if the checkpoint said gamma and beta.
        """
        self.config.auto_map = dict(REMOTE_CODE)
        if kwargs.get("is_main_process", True) and not Path(save_directory).is_file():
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            _copy_if_changed(Path(EMBEDDED_MODEL, REMOTE_CODE_FILE), Path(save_directory, REMOTE_CODE_FILE))
        super().save_pretrained(save_directory, *args, **{"save_original_format": False} | kwargs)

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Called by transformers before it reports on a checkpoint: report in one line instead of its long table.

        The keys stay in ``loading_info``, which a caller may ask for.
        """
        super()._adjust_missing_and_unexpected_keys(loading_info)
        leave_untold(loading_info)
        lost = sorted(key for key in loading_info.missing_keys if key.startswith("bert.embeddings."))
        if lost:
            raise ValueError(f"{self.name_or_path} lacks {lost[0]}: pass a checkpoint of BERT or of this model.")
        if WORD_SCALE in loading_info.unexpected_keys:
            raise ValueError(f"{self.name_or_path} holds {WORD_SCALE} of a packed encoder and no {PROJECTION}, which "
                             "belongs beside it: fetch all files of the encoder.")
        misplaced = sorted(key for key in loading_info.unexpected_keys if key.startswith(_ADDED_TO_WORDS))
        if misplaced:
            raise ValueError(f"{self.name_or_path} holds {misplaced[0]}, which its configuration leaves out: pass the "
                             "configuration it was saved with.")
        dropped, fresh = _parts(loading_info.unexpected_keys), _parts(loading_info.missing_keys)
        drops_positions = getattr(self.config, "drops_positions", False)
        misfits = loading_info.mismatched_keys
        of_head = {entry for entry in misfits if self.head_name and entry[0].startswith(f"{self.head_name}.")}
        # The head of a BERT, or of another form of model, need not fit.
        allowed = misfits if _IGNORE_MISFITS.get() else of_head if "encoder" in dropped or drops_positions else set()
        if misfits - allowed:
            weight, found, expected = min(misfits - allowed)
            remedy = ", or ignore_mismatched_sizes=True for a new head" if misfits == of_head else ""
            raise ValueError(f"{self.name_or_path} has {weight} of shape {list(found)}, its configuration asks for "
                             f"{list(expected)}: pass the configuration it was saved with{remedy}.")
        fresh |= _parts(entry[0] for entry in misfits)
        if dropped or fresh or drops_positions:
            name = "the checkpoint" if self.name_or_path in ("", "None") else self.name_or_path
            named = (_parts(self.state_dict()) - fresh, dropped, fresh)
            kept_line, dropped_line, fresh_line = (", ".join(sorted(parts)) or "nothing" for parts in named)
            if drops_positions:
                kept_line += (f", with the mean of {self.config.max_position_embeddings} positions added to every word "
                              "in the place of positions")
            logger.warning(
                f"{name}: kept {kept_line}; dropped {dropped_line}; "
                f"newly initialised {fresh_line}{' (train it before use)' if fresh else ''}."
            )


def _copy_if_changed(source: Path, target: Path) -> None:
    """Copy a file, unless the target holds the same: it may be the source itself."""
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return
    with atomic_path(target) as unfinished:
        unfinished.write_bytes(content)


def leave_untold(loading_info: Any) -> None:
    """Let transformers make no report of a checkpoint, which it does even after an error; the keys stay."""
    untold = replace(loading_info, missing_keys=set(), unexpected_keys=set(), mismatched_keys=set())
    loading_info.create_loading_report = untold.create_loading_report


def _model_of(loaded: Any) -> Any:
    """The model in what ``from_pretrained`` returns, which with ``output_loading_info`` is a pair."""
    return loaded[0] if isinstance(loaded, tuple) else loaded


def _read_other_form(
    name: str | os.PathLike[str], **kwargs: Any
) -> tuple[DendriticBertConfig, dict[str, Tensor], dict[str, Any]] | None:
    """The configuration, the weights, and those arguments that are not fields of the configuration, where the weights
    are not as transformers reads them: of PerforatedAI, or of a packed encoder. Otherwise None."""
    source = {key: kwargs.pop(key) for key in _SOURCES if key in kwargs}
    file = find_perforated(Path(name, source.get("subfolder") or ""))
    if file is not None:
        return _read_perforated_model(file, **kwargs)
    folder = packed_folder(name, **source)
    return None if folder is None else _read_encoder_model(folder, **kwargs)


def _read_perforated_model(
    file: Path, config: Any = None, dendrite_activation: str | None = None, **kwargs: Any
) -> tuple[DendriticBertConfig, dict[str, Tensor], dict[str, Any]]:
    """The configuration, the weights, and those arguments that are not fields of the configuration."""
    checkpoint = read_perforated(file, dendrite_activation)
    heads = {name: weight for name, weight in checkpoint.state_dict.items()
             if not name.startswith("bert.") and name.endswith(".weight")}
    rows = 1 + checkpoint.num_dendrites
    from_weights: dict[str, Any] = {
        "dsn": not any(name.startswith("bert.encoder.") for name in checkpoint.state_dict),
        # A head with a hidden layer has the names of an nn.Sequential.
        "head_hidden": next((weight.shape[0] // rows for name, weight in heads.items() if name.endswith(".0.weight")),
                            None),
    }
    if checkpoint.activation is not None:
        from_weights["dendrite_activation"] = checkpoint.activation
    labels = list(heads.values())[-1].shape[0] // rows if heads else None
    for name, found in (("num_labels", labels), ("num_dendrites", checkpoint.num_dendrites)):
        if found is not None and kwargs.get(name) not in (None, found):
            raise ValueError(f"{name} is {kwargs[name]}, but the weights in {file} have {found}: pass {found} or leave "
                             "it out.")
    source = file.parent / "config.json" if config is None else config
    if not isinstance(source, DendriticBertConfig):
        if not os.path.isfile(source):
            raise ValueError(f"{source} is not there, and {file} alone does not make a model: pass config, the path of "
                             "the config.json of the BERT it was trained from.")
        try:
            source, kwargs = DendriticBertConfig.from_pretrained(source, return_unused_kwargs=True,
                                                                 **from_weights | kwargs)
        except OSError as error:
            raise ValueError(f"config is {source}, which cannot be read ({str(error).splitlines()[0].rstrip('.')}): "
                             "pass the path of the config.json of the BERT it was trained from.") from error
    fields = source.to_dict() | from_weights | {"num_dendrites": checkpoint.num_dendrites}
    if labels not in (None, source.num_labels):
        fields = {name: value for name, value in fields.items() if name not in ("id2label", "label2id")}
        fields["num_labels"] = labels
    return DendriticBertConfig(**fields), checkpoint.state_dict, kwargs


def _read_encoder_model(
    folder: Path, config: Any = None, **kwargs: Any
) -> tuple[DendriticBertConfig, dict[str, Tensor], dict[str, Any]]:
    """As ``_read_other_form``. The projection is the head, unless the configuration asks for another head.

    Auto classes pass a configuration of the folder, so that it is the fields that are compared.
    """
    if not isinstance(config, DendriticBertConfig):
        config, kwargs = DendriticBertConfig.from_pretrained(folder if config is None else config,
                                                             return_unused_kwargs=True, **kwargs)
    state_dict, of_folder = read_encoder(folder, config), DendriticBertConfig.from_pretrained(folder)
    if any(getattr(config, field) != getattr(of_folder, field) for field in _OF_A_HEAD):
        state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith(HEAD)}
    return config, state_dict, kwargs


def _config_with_positions(
    name: str | os.PathLike[str] | None, config: Any = None, **kwargs: Any
) -> tuple[DendriticBertConfig | None, dict[str, Any]]:
    """Where a model without positions is asked for and the checkpoint has some: the configuration with which it can be
    loaded before it drops them, and the arguments that are no fields of it. Otherwise None, and all arguments."""
    unchanged = kwargs if config is None else {"config": config, **kwargs}
    asked_for = isinstance(config, DendriticBertConfig) and config.max_position_embeddings == 0
    if name is None or kwargs.get("state_dict") is not None or not (
            asked_for or kwargs.get("window_layers") or kwargs.get("max_position_embeddings") == 0):
        return None, unchanged
    source = {key: kwargs[key] for key in _SOURCES if key in kwargs}
    stored, _ = DendriticBertConfig.get_config_dict(name, **source)
    num_positions = stored.get("max_position_embeddings", DendriticBertConfig.max_position_embeddings)
    if num_positions == 0:
        return None, unchanged
    if not asked_for:
        names = {field.name for field in fields(DendriticBertConfig)} - {"dtype"} | {"num_labels"}
        changes = {key: kwargs.pop(key) for key in names & kwargs.keys()}
        config = DendriticBertConfig.from_pretrained(name if config is None else config, **source, **changes)
    if config.embedding_norm != "layer_norm":
        raise ValueError(f"embedding_norm is {config.embedding_norm!r}, but {name} was trained with LayerNorm: leave "
                         "embedding_norm out.")
    config = copy.deepcopy(config)
    config.max_position_embeddings, config.drops_positions = num_positions, True
    return config, kwargs


def _parts(names: Iterable[str]) -> set[str]:
    """The parts of BERT to which weights of these names belong: embeddings, encoder, pooler, cls, classifier, ..."""
    return {name.removeprefix("bert.").split(".")[0] for name in names}
