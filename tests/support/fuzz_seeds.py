"""What the fuzzers begin with: a small model in each of its forms, texts, offsets and lines.

    python tests/support/fuzz_seeds.py FOLDER

writes FOLDER/TARGET/NAME for each target. They are made anew each time, so that they follow the format of the file of a
model.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import torch
from small_classifier import small_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from windowed_models import windowed_model

from dendritic_bert.inference.engine_model import model_file
from dendritic_bert.inference.tokenization import PackedTokenizer
from dendritic_bert.inference.tokenizer_test_strings import TEST_STRINGS

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcfox", "##o", "##x", "the", "quick", "brown", "caf", "##e",
              "\u4e16", "\u754c"]
SIZES = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 20}
WINDOWS = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "window_dendrites": 16, "window_layers": 2}
MODELS = {
    "full_width": lambda: small_model(**SIZES),
    "full_width_int8": lambda: small_model(**SIZES).prepare(torch.int8),
    "folded": lambda: small_model(**SIZES, hidden_size=64, num_dendrites=1),
    "windows": lambda: windowed_model(**WINDOWS),
    "windows_bfloat16": lambda: windowed_model(**WINDOWS).prepare(torch.bfloat16),
    "windows_int8": lambda: windowed_model(**WINDOWS).prepare(torch.int8),
}


def model_bytes(name: str) -> bytes:
    """The file of one of MODELS."""
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(VOCABULARY[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    model = MODELS[name]()
    with torch.no_grad():
        tables = model.current_tables()
    return model_file(tables, model.config, PackedTokenizer(tokenizer), 20, 20, ["good", "bad"]).tobytes()


def text_seeds() -> dict[str, bytes]:
    """Settings, repeats and length, and texts with 0xFF between them; one that is repeated beyond a part."""
    texts = [*(text for text in TEST_STRINGS if len(text) < 100), "the fox ab [SEP][SEP] unaffable!",
             "abes\u0301\u0345\u4e16", "P][CLS]", "\0a\x7fb\x85"]
    joined = {str(number): b"\xff".join(text.encode() for text in texts[number:number + 8])
              for number in range(0, len(texts), 8)}
    short = {f"{name}_{bits}": bytes([bits, 0, 5]) + data for name, data in joined.items() for bits in (15, 0, 31, 62)}
    return short | {f"long_{number}": bytes([15, 255, 200]) + texts[-number].encode() for number in (1, 2, 3, 4)}


def arrow_seeds() -> dict[str, bytes]:
    """A kind, a count, what is skipped and how many are null; offsets, or lengths of them; bytes and validity."""
    ends = np.arange(0, 90, 10)
    head = bytes([8, 0, 1])
    return {"int32": b"\4" + head + ends.astype("<i4").tobytes() + b"a fox the " * 8,
            "int64": b"\5" + head + ends.astype("<i8").tobytes() + b"caf\xc3\xa9 fox " * 8,
            "lengths": b"\6" + bytes([40, 2, 3, 1, *range(40)]) + b"the quick " * 60 + b"\xff" + b"\xfe" * 8,
            "falling": b"\4" + head + ends[::-1].astype("<i4").tobytes() + b"a fox the " * 8,
            "beyond": b"\5" + head + struct.pack("<9q", *range(8), 2**62) + b"a fox",
            "negative_length": b"\4" + bytes([3, 200, 1]) + ends[:4].astype("<i4").tobytes() + b"a fox the " * 3,
            "far_apart": b"\4" + bytes([1, 0, 1]) + struct.pack("<2i", -2**31, 2**31 - 1) + b"a fox"}


def record_seeds() -> dict[str, bytes]:
    """A choice of settings, the most records and bytes, and lines."""
    head = struct.pack("<BH", 20, 1000)
    text = 'a fox\ncaf\u00e9 "x"\n\n\ttab\n'.encode()
    rows = b'a,b\r\n1,"x ""y"" \n z"\n2,plain\n,\n"",""\n3\n'
    objects = (rb'{"text": "a \ud83d\ude00 \n", "b": {"c": [1, -2.5e3, true, null]}, "a": "x"}' b"\n"
               rb' {"text": "\u0000"}' b"\n" rb'{"b": [[[]]], "text": ""}' b"\n\n" rb'{"text": "\ud800"}' b"\n[1]\n")
    return {"text": b"\0" + head + text, "csv": b"\1" + head + rows, "tsv": b"\2" + head + rows.replace(b",", b"\t"),
            "semicolons": b"\11" + head + rows.replace(b",", b";"), "jsonl": b"\3" + head + objects,
            "values": b"\13" + head + objects}


def write_seeds(folder: Path) -> None:
    """Write all of them to ``folder``/TARGET/NAME."""
    seeds = {"text": text_seeds(), "model_file": {name: model_bytes(name) for name in MODELS}, "arrow": arrow_seeds(),
             "records": record_seeds()}
    for target, of_target in seeds.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in of_target.items():
            (folder / target / name).write_bytes(data)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
