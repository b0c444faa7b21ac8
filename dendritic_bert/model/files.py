"""The files that make up the folder of a model."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Plain PyTorch in one file, with which transformers loads a model where this package is not installed, and what a
# configuration says of it: Auto class -> class in the file.
REMOTE_CODE_FILE = "modeling_dendritic_bert.py"
REMOTE_CODE = {
    "AutoConfig": "modeling_dendritic_bert.DendriticBertConfig",
    "AutoModel": "modeling_dendritic_bert.DendriticBertModel",
    "AutoModelForQuestionAnswering": "modeling_dendritic_bert.DendriticBertForQuestionAnswering",
    "AutoModelForSequenceClassification": "modeling_dendritic_bert.DendriticBertForSequenceClassification",
}
MODEL_FILES = (CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "README.md", REMOTE_CODE_FILE)
