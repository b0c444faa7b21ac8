"""The files that make up the folder of a model."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_FILES = (CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "README.md")
