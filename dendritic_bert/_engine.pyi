"""The C++ extension of the engine: BERT's tokenizer. It knows no torch and no numpy."""

class Tokenizer:
    """BertNormalizer, BertPreTokenizer and WordPiece; threads may share it.

    vocabulary: every token and its id. most_characters: a word of more of them is unknown. added_tokens: content, id,
    and whether it is only found, so that it hides what overlaps it, and then read as text. prefix, suffix: the ids of
    the special tokens before and behind each text. log2_cache_lines: 2 to this power is the number of cache lines, of
    two words each, that every thread remembers.
    """

    def __new__(
        cls, vocabulary: dict[str, int], unknown_id: int, continuing_prefix: str, most_characters: int,
        clean_text: bool, handle_chinese_chars: bool, strip_accents: bool, lowercase: bool,
        added_tokens: tuple[tuple[str, int, bool], ...], prefix: tuple[int, ...], suffix: tuple[int, ...],
        log2_cache_lines: int = ...,
    ) -> Tokenizer: ...
    def encode(self, texts: list[str], max_length: int, keeps_end: bool) -> tuple[bytearray, bytearray, int]:
        """The rows of the texts, int32 ids one row behind another; int64 ``cu_seqlens``; how many rows were cut.

        A row longer than ``max_length`` keeps its special tokens, and the end of its text or the beginning. Raises
        UnicodeEncodeError for a lone surrogate, TypeError for what is no str, ValueError for a text of more than 1 GiB,
        or if ``max_length`` leaves no room for the special tokens.
        """
