"""A tokenizer and a classifier small enough to be made anew by every test file."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast

from dendritic_bert import DendriticBertConfig, DendriticBertForSequenceClassification
from dendritic_bert.inference.tokenizer_test_strings import TEST_STRINGS

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[MASK]", "[SEP]", "[CLS]"]  # [CLS] is 4, not 101
WORDS = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog,", "unaffable", "and", "1,000", "times",
         "unflinchingly", "bleak!", "It's", "a", "charming", "and", "often", "affecting", "journey:", "..."]
MAX_LENGTH = 24


def train_tokenizer(lowercase: bool = True) -> Tokenizer:
    """WordPiece with a vocabulary of its own, as `dendritic-bert train --vocab_size` makes one."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([*WORDS, *TEST_STRINGS], trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=SPECIAL_TOKENS, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 3)])
    return tokenizer


def hugging_face_tokenizer(lowercase: bool = True) -> BertTokenizerFast:
    return BertTokenizerFast(tokenizer_object=train_tokenizer(lowercase), do_lower_case=lowercase)


def small_model(seed: int = 0, **config) -> DendriticBertForSequenceClassification:
    """Random weights, large enough for scores to differ from text to text; ``config`` is DendriticBertConfig's."""
    torch.manual_seed(seed)
    config = {"vocab_size": 600, "hidden_size": 16, "max_position_embeddings": MAX_LENGTH, "num_dendrites": 2,
              "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 1.0,
              **config}
    return DendriticBertForSequenceClassification(DendriticBertConfig(**config)).eval()
