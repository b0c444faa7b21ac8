"""What a training starts from: a pretrained encoder, a checkpoint with its tokenizer, or random numbers and a new
vocabulary."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedConfig

from ..auto_classes import MODEL_TYPE
from ..datasets.row_checks import MOST_UNKNOWN
from ..datasets.vocabulary import add_words, train_vocabulary, with_vocabulary
from ..datasets.word_counter import WordCounter
from ..inference.tokenization import PackedTokenizer
from ..inference.tokenizer_files import load_tokenizer
from ..model.configuration import DendriticBertConfig
from ..model.dendritic_linear import dendritic_layers, resize_dendrites
from ..model.files import WITHOUT_WINDOWS
from ..model.modeling import DendriticBertForSequenceClassification
from ..model.packed_encoder import form_of, is_encoder
from .options import FORMS, FRESH_SIZES, TrainingOptions

SHOWN_LABELS = 6
WITHOUT_POSITIONS = 1 << 20  # tokens of a row for a model that could read more; a book of 800 pages has half as many
READ_TEXTS = 2000  # whose words the vocabulary of the package's encoder must hold
# Options of the form that a saved model brings, and of its head, in the place of which an encoder gets a new one.
SAVED_FORM = ("window_dendrites", "window_layers", "window_radius", "pooling", "embedding_norm", "encoder_pooling")
SAVED_HEAD = ("head_hidden", "dendrite_activation")
# Fields of the configuration -> the options that set them.
DROPOUTS = {"hidden_dropout_prob": "hidden_dropout_prob", "classifier_dropout": "classifier_dropout",
            "window_dropout_prob": "window_dropout"}
DEFAULT_ACTIVATION = TrainingOptions.dendrite_activation
OF_ENCODER = ("encoder_windows", "add_words", "word_share")  # options that nothing but a pretrained encoder uses


def choose_start(options: Any, texts: Iterable[str], settings: dict[str, Any]) -> Any:
    """``options`` with ``init`` "encoder" where ``model_name`` is a pretrained encoder, and "random", after a warning,
    where the vocabulary of the package's encoder lacks more than one in twenty words of the first ``texts``; and with
    ``encoder_windows`` "on" where the encoder has one form alone, or where ``window_dropout`` asks for windows.

    ``settings`` are those of the task: a regression of as many outputs goes on from ``model_name`` as a regression.
    Raises ValueError if ``init`` is "encoder" and ``model_name`` is none, for an option that an encoder alone has a use
    for where training starts from none, and for one that asks for another form than a model of this package has.
    """
    found = _find_start(options, texts, settings)
    if (config := saved_config(found.checkpoint)) is not None:
        _expect_form(found, config)
    given = [name for name in OF_ENCODER if getattr(options, name)]
    if found.init == "encoder" or not given:
        return found
    if options.init == "encoder":  # and a warning has said that it is not taken
        return replace(found, **dict.fromkeys(OF_ENCODER))
    raise ValueError(f"{given[0]} is {getattr(options, given[0])}, but what training starts from, "
                     f"{options.model_name or 'random numbers'}, is no pretrained encoder: leave it out.")


def _find_start(options: Any, texts: Iterable[str], settings: dict[str, Any]) -> Any:
    if options.model_name is not None:
        config = saved_config(options.checkpoint)
        is_start = config is not None and is_encoder(config) and (
            settings.get("problem_type") != "regression" or settings["num_labels"] != config.num_labels)
        if options.init == "encoder" and not is_start:
            raise ValueError(f"init is encoder, but model_name {options.model_name} is no pretrained encoder: leave "
                             "init out.")
        if not is_start:
            return options
        options = replace(options, init="encoder")
    if options.init != "encoder":
        return options
    has_one_form = not form_of(str(options.checkpoint), windows=False)
    if options.encoder_windows is None and (has_one_form or options.window_dropout):
        options = replace(options, encoder_windows="on")
    if options.model_name is not None:
        return options
    tokenizer = load_tokenizer(options.checkpoint)
    counter = WordCounter(tokenizer)
    counter.add(PackedTokenizer(tokenizer)(list(islice(texts, READ_TEXTS))).input_ids)
    share = counter.num_unknown / max(1, counter.num_words)
    if share <= MOST_UNKNOWN:
        return options
    warnings.warn(f"{share:.0%} of the words are not in the vocabulary of the pretrained encoder, so training starts "
                  "from random numbers (--init random).", stacklevel=3)
    return replace(options, init="random")


def _expect_form(options: Any, config: DendriticBertConfig) -> None:
    """Raise ValueError for an option that asks for another form than the saved model of ``config`` has; the default of
    the command asks for none."""
    source = "the pretrained encoder" if options.model_name is None else f"model_name {options.model_name}"
    names = [*SAVED_FORM, *(SAVED_HEAD if options.init != "encoder" else ())]
    if not config.num_dendrites and "dendrite_activation" in names:
        names.remove("dendrite_activation")  # there are none yet, and those to come will have it
    for option in fields(options):
        if option.name not in names:
            continue
        given, brought = getattr(options, option.name), getattr(config, option.name)
        if given and given not in (option.default, options.own_defaults.get(option.name), brought):
            raise ValueError(f"{option.name} is {given}, but {source} brings {brought}: leave it out.")
    if options.init != "encoder" and 0 < options.num_dendrites < config.num_dendrites:
        raise ValueError(f"num_dendrites is {options.num_dendrites}, but {source} brings {config.num_dendrites}, of "
                         "which none is taken away: leave it out.")
    if options.window_dropout and (not config.window_layers or options.encoder_windows == "off"):
        raise ValueError(f"window_dropout is {options.window_dropout}, but {source} is taken without windows: leave it "
                         "out.")


def make_tokenizer(options: TrainingOptions, texts: Iterable[str]) -> Any:
    """The tokenizer that ``options`` name, by itself or with its checkpoint, or a new one trained on ``texts``.

    That of a pretrained encoder gets the words of ``texts``, for which ``start_added_words`` makes rows.

    Raises OSError if it cannot be loaded, ValueError if ``vocab_size`` cannot hold the characters of the texts, if
    ``cased`` is asked of one that makes texts lower case, or if ``max_length`` leaves no room for a text.
    """
    tokenizer = _find_tokenizer(options, texts)
    num_special = tokenizer.num_special_tokens_to_add()
    if options.max_length <= num_special:
        raise ValueError(f"max_length is {options.max_length}, of which the special tokens take {num_special} and a "
                         f"text at least one: pass {num_special + 1} or more.")
    return tokenizer


def _find_tokenizer(options: TrainingOptions, texts: Iterable[str]) -> Any:
    argument = "tokenizer_name" if options.checkpoint is None else "model_name"
    name = options.checkpoint or options.tokenizer_name
    if name is None:
        return train_vocabulary(texts, options.vocab_size or FRESH_SIZES["vocab_size"], options.cased)
    try:
        tokenizer = load_tokenizer(name)
    except (OSError, ValueError) as error:  # whose own messages are paragraphs
        raise OSError(f"the tokenizer of {argument} {name} cannot be loaded ({type(error).__name__}): pass a folder "
                      "that holds its tokenizer.json or vocab.txt, or a hub id.") from error
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if options.cased and normalizer is not None and normalizer.normalize_str("A") != "A":
        raise ValueError(f"cased is True, but {argument} {name} brings a tokenizer that makes texts lower case: leave "
                         "it out.")
    if options.init == "encoder" and options.add_words:
        add_words(tokenizer, texts, options.add_words)
    return tokenizer


def build_model(model_class: Any, options: TrainingOptions, settings: dict[str, Any], vocab_size: int) -> Any:
    """A ``model_class`` as ``options`` describe it; ``settings`` are the fields of ``DendriticBertConfig`` that the
    task determines."""
    # What a checkpoint has of these belongs to other weights, and to other rows.
    settings = {"training_columns": None} | settings | {"temperature": 1.0}
    settings |= {name: value for name, option in DROPOUTS.items() if (value := getattr(options, option)) is not None}
    head = {name: getattr(options, name) for name in ("num_dendrites", "dendrite_activation", "head_hidden")}
    if options.init == "encoder":
        return _put_on_encoder(model_class, options, settings | head)
    if saved_config(options.checkpoint) is not None:
        return _load_saved(model_class, options, settings)
    settings = settings | head | {name: getattr(options, name) for name in ("encoder_pooling", "window_dendrites",
                                                                            "window_layers", "window_radius")}
    settings["pooling"] = options.pooling or FORMS[options.has_windows]["pooling"]
    if options.embedding_norm is not None:
        settings["embedding_norm"] = options.embedding_norm
    if options.model_name is not None:
        if not options.num_dendrites:
            del settings["num_dendrites"]  # a file of PerforatedAI has its own
        return model_class.from_pretrained(options.checkpoint, dsn=options.dsn, dtype=torch.float32, **settings)
    sizes = {name: default if getattr(options, name) is None else getattr(options, name)
             for name, default in FRESH_SIZES.items()}
    model = model_class(DendriticBertConfig(**{"hidden_dropout_prob": 0.0, "num_hidden_layers": 0,
                                               "num_attention_heads": 1, **settings, **sizes,
                                               "vocab_size": vocab_size}))
    embeddings = model.bert.embeddings
    if model.config.embedding_norm == "layer_norm":
        # Word vectors start small (0.02) beside one large vector that all tokens share. Without it, LayerNorm would
        # scale a word that is hardly ever seen to full length in a random direction; with it, such a word stays neutral
        # until it has been trained. This is worth 1.5 points on SST-2 and makes dropout needless.
        torch.nn.init.normal_(embeddings.token_type_embeddings.weight)
    else:
        # Nothing scales a word up. With windows, 0.02 and the large vector gave the teacher's label on 85.0 % of 20,000
        # held-out sentences of films, 0.1 and none on 85.9 % (one seed, after the 8 epochs of the recipe).
        torch.nn.init.normal_(embeddings.word_embeddings.weight, std=0.1)
    # The head starts as nn.Linear does.
    for layer in dendritic_layers(model).values():
        layer.reset_parameters()
    return model


def _put_on_encoder(model_class: Any, options: TrainingOptions, settings: dict[str, Any]) -> Any:
    """A new head on the pretrained encoder, which brings everything else; ``standardised_head`` draws the head again
    when it has seen rows."""
    folder = str(options.checkpoint)
    form = form_of(folder, windows=options.encoder_windows != "off")
    if options.encoder_windows == "off" and not form:
        raise ValueError(f"encoder_windows is off, but {folder} has no {WITHOUT_WINDOWS}: leave it out.")
    dropouts = {"hidden_dropout_prob": 0.0} | {name: settings[name] for name in DROPOUTS if name in settings}
    encoder = DendriticBertForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **form, **dropouts)
    values = {name: value for name, value in encoder.config.to_dict().items() if name not in ("id2label", "label2id")}
    model = model_class(DendriticBertConfig.from_dict(values | settings))
    model.bert = encoder.bert
    return model


@torch.no_grad()
def start_added_words(model: Any, tokenizer: Any) -> None:
    """Give the words that ``tokenizer`` has and the table of ``model`` has not rows of their own, in place: what the
    pieces e_i of the word, with the logits g_i of their gates, are together in a gated mean of tokens.

        e = sum_i softmax(g)_i e_i;    its gate's logit is log sum_i exp(g_i)

    So a gated bag of words gives the same pooled rows as before; windows, which read e, give others. g is 0 where there
    is no gate.
    """
    words, gate = model.get_input_embeddings(), getattr(model.bert, "gate", None)
    size, hidden_size = words.weight.shape
    vocabulary = tokenizer.get_vocab()
    added = sorted((word for word, number in vocabulary.items() if number >= size), key=vocabulary.__getitem__)
    if not added:
        return
    split = Tokenizer(with_vocabulary(tokenizer.backend_tokenizer.model, {
        piece: number for piece, number in vocabulary.items() if number < size}))
    of_row, of_word = words.weight.new_zeros(hidden_size), words.weight.new_zeros(size)
    if gate is not None:
        of_row, of_word = gate.weight[:hidden_size], gate.word_bias
    rows, logits = [], []
    for encoding in split.encode_batch(added):
        pieces = words.weight[encoding.ids]
        logit = pieces @ of_row + of_word[encoding.ids]
        rows.append(logit.softmax(dim=0) @ pieces)
        logits.append(logit.logsumexp(dim=0) - rows[-1] @ of_row)
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(
        torch.cat([words.weight, torch.stack(rows)]), freeze=False, padding_idx=words.padding_idx))
    if gate is not None:
        gate.word_bias = torch.nn.Parameter(torch.cat([gate.word_bias, torch.stack(logits)]))
    model.config.vocab_size = size + len(added)


# ---- from a saved model ----------------------------------------------------------------------------------------------


def saved_config(name: str | None) -> DendriticBertConfig | None:
    """The configuration of a model of this package in a folder or on the hub; None for another checkpoint, and for one
    that cannot be loaded, which whoever loads it will say."""
    if name is None:
        return None
    try:
        values, _ = PreTrainedConfig.get_config_dict(name)
    except (OSError, ValueError):
        return None
    return DendriticBertConfig.from_dict(values) if values.get("model_type") == MODEL_TYPE else None


def known_labels(config: DendriticBertConfig | None) -> list[str]:
    """The names of the classes of a saved model, in the order of its outputs; none for a regression, or for None."""
    if config is None or config.problem_type == "regression":
        return []
    return [str(name) for _, name in sorted((config.id2label or {}).items())]


def given_labels(config: DendriticBertConfig | None) -> list[str]:
    """``known_labels``, but for transformers' LABEL_0, LABEL_1 and so on, which those of a converted BERT are called
    and nobody gave."""
    names = known_labels(config)
    return [] if names == [f"LABEL_{number}" for number in range(len(names))] else names


def goes_on_from_a_regression(options: TrainingOptions, num_labels: int) -> bool:
    """Whether training goes on from a regression of as many numbers, whose head is kept."""
    saved = None if options.init == "encoder" else saved_config(options.checkpoint)
    return saved is not None and saved.problem_type == "regression" and saved.num_labels == num_labels


def _load_saved(model_class: Any, options: TrainingOptions, settings: dict[str, Any]) -> Any:
    """The saved model, whose shape stays, with an output for each label of ``settings``: the outputs of labels that it
    knows are as they were, those of others start as a new head's do. Dropout, and the activation function of dendrites
    where it has none yet, are those of ``options``."""
    saved = saved_config(options.checkpoint)
    changes = {name: settings[name] for name in DROPOUTS if name in settings}
    if saved is not None and not saved.num_dendrites and options.dendrite_activation != DEFAULT_ACTIVATION:
        changes["dendrite_activation"] = options.dendrite_activation
    model = model_class.from_pretrained(options.checkpoint, dtype=torch.float32, **changes)
    config = model.config
    if options.num_dendrites > config.num_dendrites:
        resize_dendrites(model, options.num_dendrites)
    old, names = known_labels(config), list(settings.get("id2label", {}).values())
    if settings["num_labels"] != config.num_labels or (names and names != old):
        sources = [old.index(name) if name in old else None for name in names] or [None] * settings["num_labels"]
        list(dendritic_layers(model).values())[-1].set_outputs(sources)
        unknown = [name for name in names if name not in old]
        if unknown:
            print(f"model_name {options.model_name} knows {len(names) - len(unknown)} of {settings['num_labels']} "
                  f"labels; new: {', '.join(unknown[:SHOWN_LABELS])}{', ...' if len(unknown) > SHOWN_LABELS else ''}",
                  file=sys.stderr)
    for name, value in settings.items():
        setattr(config, name, value)
    model.num_labels = config.num_labels  # which transformers reads when it makes a model, and never again
    config.table_dtype = None  # a form was chosen by the labels that the model gave before
    return model


def longest_row(config: DendriticBertConfig) -> int:
    """The most tokens that a model reads of a text."""
    return config.max_position_embeddings or WITHOUT_POSITIONS


def longest_row_to_be(options: TrainingOptions) -> int:
    """``longest_row`` of the model that ``build_model`` makes. Raises OSError if a checkpoint cannot be read."""
    if options.checkpoint is None:
        given = options.max_position_embeddings
        return (FRESH_SIZES["max_position_embeddings"] if given is None else given) or WITHOUT_POSITIONS
    if options.has_windows and options.init != "encoder":
        return WITHOUT_POSITIONS
    return longest_row(DendriticBertConfig.from_pretrained(options.checkpoint))


def live_parameters(model: Any) -> dict[str, int]:
    """Numbers of parameters that can change the output: of the embeddings, of windows and gate, of the encoder, of the
    head, of all."""
    embeddings = sum(parameter.numel() for parameter in model.bert.embeddings.parameters())
    others = sum(parameter.numel() for parameter in model.bert.parameters()) - embeddings
    windows, encoder = (others, 0) if model.config.dsn else (0, others)
    head = sum(layer.num_live_parameters() for layer in dendritic_layers(model).values())
    return {"embeddings": embeddings, "windows": windows, "encoder": encoder, "head": head,
            "all": embeddings + others + head}
