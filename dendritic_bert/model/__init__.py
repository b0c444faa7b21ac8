"""The Hugging Face model: configuration, modules, and the tables that inference reads."""
