"""What a training can be told of its model and its method, and the checks of it.

Each field is the flag of the same name on the command line, with ``metadata["help"]`` as its help text. Nothing here
imports torch or transformers, so that ``dendritic-bert train --help`` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..embedded_model import EMBEDDED_ENCODER, find_model
from .data_options import BY_DATA, DataOptions, expect_seed

# Sizes of a model that starts from random numbers; a checkpoint brings its own.
FRESH_SIZES = {"vocab_size": 30000, "hidden_size": 16, "max_position_embeddings": 512}
BERT_VOCABULARIES = {False: "google-bert/bert-base-uncased", True: "google-bert/bert-base-cased"}
TRACKERS = {"none": None, "wandb": "wandb", "tensorboard": "tensorboard"}  # each with the package that it needs
# What a new model without windows, and one with windows, has unless it is told; bench/accuracy/windows.py compares.
# What was trained on sentences must read whole reviews, so a model with windows has no positions.
WINDOWS = {"window_dendrites": 32, "window_layers": 5}
FORMS: dict[bool, dict[str, Any]] = {
    False: {"pooling": "mean_masked", "embedding_norm": "layer_norm"},
    True: {"pooling": "gated_mean", "embedding_norm": "none", "max_position_embeddings": 0}}
# Options that ask for a model or a vocabulary of another form than a pretrained encoder has.
OWN_FORM = ("tokenizer_name", "vocabulary", "cased", *FRESH_SIZES, *WINDOWS, "embedding_norm", "pooling")


@dataclass
class TrainingOptions(DataOptions):
    """The model and the method of a training; the fields of ``DataOptions`` are its rows.

    For rows of one's own, the fields whose default is "fits the rows" are set by ``defaults.fit_to_rows``.

    Raises ValueError, which names the field, for values that cannot be used.
    """

    command: ClassVar[str] = "train"
    own_defaults: ClassVar[dict[str, Any]] = {}  # of fields whose help has another command's
    unused: ClassVar[tuple[str, ...]] = ()  # fields that the command refuses

    model_name: str | None = field(default=None, metadata={
        "help": "model to start from, a folder or a hub id: a BERT checkpoint, a pretrained encoder or a model of this "
                "package; without it init says what training starts from"})
    init: Literal["encoder", "random"] | None = field(default=None, metadata={
        "help": "encoder: the pretrained encoder that comes with the package; random: random numbers, with a "
                "vocabulary trained on the training texts (default: encoder for rows of your own, unless an option "
                "asks for another vocabulary, size or form; random for a benchmark)"})
    encoder_windows: Literal["on", "off"] | None = field(default=None, metadata={
        "help": "whether a pretrained encoder that has both forms reads words in windows, or each for itself (default: "
                "fits the rows)"})
    add_words: int | None = field(default=None, metadata={
        "help": "on a pretrained encoder: words of the training texts that its vocabulary splits get rows of their own "
                "where they occur this often; 0 adds none (default: 0, for own rows fits the rows)"})
    word_share: float | None = field(default=None, metadata={
        "help": "on a pretrained encoder without windows: share of the logits that a logistic regression on the words "
                "has, which is folded into the word vectors (default: 0, for own rows fits the rows)"})
    tokenizer_name: str | None = field(default=None, metadata={
        "help": "tokenizer of a model that starts from random numbers, a folder or a hub id; without it a vocabulary "
                "is trained"})
    dsn: bool = field(default=False, metadata={
        "help": "train a Dendritic Semantic Network (DSN): the embeddings are pooled under the head, without an "
                "encoder; without this flag BERT's encoder is kept. Rows of your own and no model_name: always"})
    output_dir: str = field(default="outputs", metadata={
        "help": "folder for the weights, the tokenizer and the model card; files of the same names are replaced"})
    epochs: int = field(default=BY_DATA, metadata={
        "help": "passes over the training rows (default: 3, for own rows fits the rows)"})
    batch_size: int = field(default=BY_DATA, metadata={
        "help": "training rows per step (default: 256, for squad 32, for own rows fits the rows)"})
    lr: float | None = field(default=None, metadata={
        "help": "highest learning rate, which then falls linearly to 0 (default: 2e-3 from random numbers, 3e-4 for a "
                "DSN made of a checkpoint, 1e-4 with its encoder; for own rows fits the rows)"})
    head_lr_factor: float | None = field(default=None, metadata={
        "help": "learning rate of the head, as a multiple of lr (default: 1, for own rows fits the rows)"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={
        "help": "train once with each seed and report every score; the weights of the first are kept"})
    word_dropout: float = field(default=BY_DATA, metadata={
        "help": "probability that a token is masked out in training (default: 0.2, for squad 0, for own rows fits "
                "the rows)"})
    warmup: float = field(default=0.0, metadata={
        "help": "share of the steps during which the learning rate rises from 0"})
    weight_decay: float = field(default=BY_DATA, metadata={
        "help": "AdamW's weight decay (default: 0.01, for own rows fits the rows)"})
    label_smoothing: float | None = field(default=None, metadata={
        "help": "share of each target that is spread over all classes (default: 0, for own rows fits the rows)"})
    class_weights: Literal["none", "balanced"] = field(default="none", metadata={
        "help": "balanced: the loss of a row weighs n / (classes * rows of its class), as in scikit-learn"})
    early_stopping: bool = field(default=False, metadata={
        "help": "end after patience epochs without a better loss on the dev rows, and keep the best epoch"})
    calibrate: bool = field(default=False, metadata={
        "help": "fit a temperature on the dev rows, by which scores divide the logits (own rows)"})
    baseline: bool = field(default=True, metadata={
        "help": "own rows: train a TF-IDF logistic regression on the same rows, and give its score beside the model's"})
    ema: float = field(default=0.0, metadata={
        "help": "decay of an exponential moving average of the weights, which is kept in place of the last weights; 0 "
                "keeps the last weights"})
    freeze_word_embeddings: bool = field(default=False, metadata={"help": "do not train the table of word embeddings"})
    vocabulary: Literal["train", "bert"] | None = field(default=None, metadata={
        "help": "train: a new vocabulary of the training texts; bert: that of model_name, or of bert-base-uncased or "
                "-cased (default: train where there is no model_name or tokenizer_name)"})
    cased: bool = field(default=False, metadata={
        "help": "a new vocabulary keeps capitals and accents"})
    vocab_size: int | None = field(default=None, metadata={
        "help": f"largest size of a new vocabulary (default: {FRESH_SIZES['vocab_size']}, for own rows fits the rows)"})
    hidden_size: int | None = field(default=None, metadata={
        "help": f"width of new embeddings (default: {FRESH_SIZES['hidden_size']}, for own rows fits the rows)"})
    max_position_embeddings: int | None = field(default=None, metadata={
        "help": "length of a new position table; 0 is a model without positions, for texts of any length (default: "
                f"{FRESH_SIZES['max_position_embeddings']}, with windows 0)"})
    window_dendrites: int | None = field(default=None, metadata={
        "help": "dendrites of each layer that looks at windows of tokens before pooling (default: 0, for text_file "
                f"from random numbers {WINDOWS['window_dendrites']})"})
    window_layers: int | None = field(default=None, metadata={
        "help": "number of these layers, each of which looks twice as far as the one before (default: 0, for text_file "
                f"from random numbers {WINDOWS['window_layers']})"})
    window_radius: int = field(default=1, metadata={"help": "tokens of a window on either side of its middle"})
    window_dropout: float | None = field(default=None, metadata={
        "help": "dropout on what a window layer adds (default: the checkpoint's, else 0)"})
    embedding_norm: Literal["layer_norm", "none"] | None = field(default=None, metadata={
        "help": "LayerNorm on the embeddings, or none (default: layer_norm; for a new model with windows none)"})
    max_length: int = field(default=BY_DATA, metadata={
        "help": "tokens to which a text is cut (default: 128, for own rows 512), or of a window of a SQuAD passage "
                "(default: 384)"})
    pooling: Literal["mean_masked", "gated_mean", "mean_all", "sum_all"] | None = field(default=None, metadata={
        "help": "how the token vectors become one: their mean, a mean whose weights are learnt, or two that count "
                "padding, for checkpoints trained that way (default: mean_masked, with windows gated_mean)"})
    encoder_pooling: Literal["cls", "mean"] = field(default="cls", metadata={
        "help": "what the encoder gives the head: BERT's pooler output, or the mean over the tokens as in "
                "sentence-transformers"})
    num_dendrites: int = field(default=0, metadata={
        "help": "dendrites of each output of the head's layers, from the start"})
    dendrite_activation: Literal["sigmoid", "tanh", "relu", "gelu"] = field(default="sigmoid", metadata={
        "help": "activation function of the dendrites"})
    head_hidden: int | None = field(default=None, metadata={
        "help": "width of a hidden layer in the head (default: none, the head is a single layer)"})
    dendrites: int = field(default=0, metadata={
        "help": "grow up to this many dendrites for each output, one whenever the loss on held-out training rows "
                "stalls; epochs then limits each stage, the time between two dendrites"})
    dendrite_schedule: Literal["perforatedai", "plain"] = field(default="perforatedai", metadata={
        "help": "what decides when a dendrite grows: PerforatedAI's tracker, or the same rule without that library"})
    patience: int = field(default=10, metadata={
        "help": "epochs without a better held-out loss after which a dendrite grows, or with early_stopping the "
                "training ends"})
    dendrite_tries: int = field(default=2, metadata={
        "help": "growing ends when this many dendrites in a row fail to improve the held-out loss"})
    validation_share: float = field(default=0.1, metadata={
        "help": "share of the training rows that decides when to grow and is not trained on"})
    hidden_dropout_prob: float | None = field(default=None, metadata={
        "help": "dropout on the vector of every token (default: the checkpoint's, else 0)"})
    classifier_dropout: float | None = field(default=None, metadata={
        "help": "dropout on the pooled vector (default: the checkpoint's, else hidden_dropout_prob)"})
    bf16: bool = field(default=False, metadata={
        "help": "train with matrix products in bfloat16: several times faster on processors that have them (AMX)"})
    save_dtype: Literal["float32", "float16", "bfloat16"] = field(default="float32", metadata={
        "help": "dtype of the weights that are written and scored"})
    report_to: Literal["none", "wandb", "tensorboard"] = field(default="none", metadata={
        "help": "tracker that receives loss and scores during training; its files go to output_dir"})
    wandb_project: str = field(default="dendritic-bert", metadata={"help": "project for report_to wandb"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.benchmark == "own" and self.model_name is None) or self.window_layers:
            self.dsn = True
        self._choose_start()
        self._choose_form()
        self._check_ranges()
        self._check_growth()
        self._check_source()

    def _choose_start(self) -> None:
        """The encoder for rows of one's own, unless something else is asked for."""
        given = [name for name in OWN_FORM if getattr(self, name)]
        if self.init is None and self.model_name is None:
            self.init = "encoder" if self.benchmark == "own" and not given else "random"
        if self.init == "encoder" and given:
            raise ValueError(f"{given[0]} is {getattr(self, given[0])}, but the encoder that init names brings its "
                             "own: pass one of the two.")
        if self.init == "encoder":
            self.dsn = True
            if self.benchmark == "squad":
                raise ValueError("init is encoder, but the benchmark squad asks for a score of every token, and an "
                                 "encoder pools them: leave init out.")
        if self.init == "random" and self.model_name is not None:
            raise ValueError(f"init is random and model_name is {self.model_name}: pass one of the two.")

    @property
    def checkpoint(self) -> str | None:
        """Folder or hub id of the model that training starts from, None for random numbers."""
        if self.model_name is not None:
            return find_model(self.model_name)
        return EMBEDDED_ENCODER if self.init == "encoder" else None

    @property
    def start(self) -> str:
        """What training starts from, in words."""
        if self.checkpoint is None:
            return "random numbers"
        if self.model_name is None:
            name = "the pretrained encoder of the package"
        else:
            name = f"the {'pretrained encoder' if self.init == 'encoder' else 'checkpoint'} `{self.model_name}`"
        return name + (", without its windows" if self.encoder_windows == "off" else "")

    def _choose_form(self) -> None:
        """Windows, and what follows from them; a checkpoint brings its own LayerNorm and positions, an encoder all."""
        if self.init == "encoder":
            return
        sizes = self.window_dendrites, self.window_layers = self.window_dendrites or 0, self.window_layers or 0
        if min(sizes) < 0 or (min(sizes) == 0) != (max(sizes) == 0):
            raise ValueError(f"window_dendrites is {self.window_dendrites} and window_layers is {self.window_layers}, "
                             "expected two numbers above 0, or neither.")
        if self.init == "random":
            self._fill(FORMS[self.has_windows])

    @property
    def has_windows(self) -> bool:
        """Whether the model has layers of dendrites on windows of tokens."""
        return bool(self.window_layers)

    def _check_ranges(self) -> None:
        for name in ("epochs", "batch_size", "lr", "head_lr_factor", "head_hidden", "vocab_size", "hidden_size"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, expected more than 0.")
        if not 0 <= (self.weight_decay or 0) < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}, expected 0 or more.")
        for name in ("word_dropout", "hidden_dropout_prob", "classifier_dropout", "warmup", "ema",
                     "label_smoothing", "window_dropout", "word_share"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more and less than 1.")
        for name, least in (("max_position_embeddings", 0), ("add_words", 0), ("num_dendrites", 0),
                            ("window_radius", 1), ("patience", 1), ("dendrite_tries", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} is {value}, expected {least} or more.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}, expected one or more, all different.")
        for seed in self.seeds:
            expect_seed("seeds", seed)

    def _check_growth(self) -> None:
        if self.dendrites < 0:
            raise ValueError(f"dendrites is {self.dendrites}, expected 0 or more.")
        if self.dendrites and self.num_dendrites:
            raise ValueError(f"dendrites is {self.dendrites} and num_dendrites is {self.num_dendrites}: pass dendrites "
                             "to grow them, or num_dendrites to have them from the start.")
        is_default = self.ema == type(self).ema  # a distillation's, which nobody gave
        if self.dendrites and self.ema:
            remedy = "--ema 0" if is_default else "num_dendrites to have dendrites from the start, or ema 0"
            raise ValueError(f"dendrites is {self.dendrites} and ema is {self.ema}, but a growing model has no average "
                             f"of its weights: pass {remedy}.")
        if self.early_stopping and (self.dendrites or self.ema):
            name = "dendrites" if self.dendrites else "ema"
            remedy = "--ema 0" if self.ema and is_default else "one of the two"
            raise ValueError(f"early_stopping is True and {name} is {getattr(self, name)}, each of which decides which "
                             f"weights are kept: pass {remedy}.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}, expected more than 0 and less than 1.")

    def _check_source(self) -> None:
        """A checkpoint brings tokenizer and sizes; what starts from random numbers needs a table for its rows."""
        if self.vocabulary == "train" and self.tokenizer_name is not None:
            raise ValueError(f"vocabulary is train and tokenizer_name is {self.tokenizer_name}: pass one of the two.")
        if self.vocabulary == "bert" and self.model_name is None and self.tokenizer_name is None:
            self.tokenizer_name = BERT_VOCABULARIES[self.cased]
        if self.model_name is not None:
            if self.vocabulary == "train":
                raise ValueError(f"vocabulary is train and model_name is {self.model_name}, which brings its own: pass "
                                 "one of the two.")
            for name in ("tokenizer_name", *FRESH_SIZES):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is {getattr(self, name)}, but model_name brings its own: pass one of the "
                                     "two.")
        if self.checkpoint is not None:
            return
        if not self.dsn:
            raise ValueError("dsn is False and model_name is not given, so there is no encoder: pass one of the two.")
        if self.tokenizer_name is not None and self.vocab_size is not None:
            raise ValueError(f"vocab_size is {self.vocab_size}, but tokenizer_name brings its own: pass one of the "
                             "two.")
        positions = self.max_position_embeddings
        if positions is None:
            positions = FRESH_SIZES["max_position_embeddings"]
        if positions and self.max_length > positions:
            raise ValueError(f"max_length is {self.max_length}, but the position table has {positions} rows: lower it.")

    def notes(self) -> list[str]:
        """What the model card says beside the fields, one sentence each."""
        return []

    @property
    def learning_rate(self) -> float:
        """``lr``, or the rate that suits what the training starts from with the rows of GLUE."""
        if self.lr is not None:
            return self.lr
        if self.init == "random":
            return 2e-3
        return 3e-4 if self.dsn else 1e-4
