"""The files that make up the folder of a model."""

import hashlib
from pathlib import Path

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "vocab.txt")
# Of a pretrained encoder alone; packed_encoder.py says what they hold.
PROJECTION, WITHOUT_WINDOWS = "projection.safetensors", "without_windows.safetensors"
BAG_FOLDER = "without_windows"  # of two encoders that were trained together: the one without windows
# Plain PyTorch in one file, with which transformers loads a model where this package is not installed, and what a
# configuration says of it: Auto class -> class in the file.
REMOTE_CODE_FILE = "modeling_dendritic_bert.py"
REMOTE_CODE = {
    "AutoConfig": "modeling_dendritic_bert.DendriticBertConfig",
    "AutoModel": "modeling_dendritic_bert.DendriticBertModel",
    "AutoModelForQuestionAnswering": "modeling_dendritic_bert.DendriticBertForQuestionAnswering",
    "AutoModelForSequenceClassification": "modeling_dendritic_bert.DendriticBertForSequenceClassification",
}
MODEL_FILES = (CONFIG, WEIGHTS, PROJECTION, WITHOUT_WINDOWS, *TOKENIZER_FILES, CARD, REMOTE_CODE_FILE)


def fingerprint(name: str) -> str:
    """A digest of the weights in a folder; a hub id stands for itself."""
    if not Path(name).is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted([*Path(name).glob("*.safetensors"), *Path(name).glob("*.bin")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
