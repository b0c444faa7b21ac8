"""Loading the tokenizer of a model's folder, also where a configuration does not say which one it is."""

from __future__ import annotations

import os
from typing import Any


class BertFolderTokenizer:
    """What ``AutoTokenizer`` uses where the folder of a model of ours names no class of tokenizer."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load tokenizer.json as it stands, or BERT's tokenizer where there is only a vocab.txt.

        BERT's tokenizer makes texts lower case unless tokenizer_config.json says otherwise.
        """
        from transformers import BertTokenizer, PreTrainedTokenizerFast
        from transformers.utils import has_file

        where = {name: kwargs[name] for name in ("revision", "token", "cache_dir", "local_files_only")
                 if name in kwargs}
        has_json, has_vocabulary = (has_file(name_or_path, os.path.join(kwargs.get("subfolder", ""), file), **where)
                                    for file in ("tokenizer.json", "vocab.txt"))
        tokenizer_class = BertTokenizer if has_vocabulary and not has_json else PreTrainedTokenizerFast
        return tokenizer_class.from_pretrained(name_or_path, *args, **kwargs)


def load_tokenizer(name_or_path: str | os.PathLike[str], revision: str | None = None) -> Any:
    """Do what ``AutoTokenizer.from_pretrained`` does, and raise what it raises; ``revision`` is that of a hub id.

    A vocab.txt is also read where the configuration beside it does not name its type, as those of the first BERT
    checkpoints do not.
    """
    from transformers import AutoTokenizer

    which = {} if revision is None else {"revision": revision}
    try:
        return AutoTokenizer.from_pretrained(name_or_path, **which)
    except ValueError:
        return BertFolderTokenizer.from_pretrained(name_or_path, **which)
