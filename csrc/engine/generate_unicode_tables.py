"""Writes unicode_tables.h: what Hugging Face's ``tokenizers`` does with every code point, asked from that very library.

    python csrc/engine/generate_unicode_tables.py > csrc/engine/unicode_tables.h

BertNormalizer and BertPreTokenizer take their properties from several crates of different Unicode versions. None of
them is named here: each property is read off what the library answers for the code point.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tokenizers
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

CODE_POINTS = 0x110000
BLOCK = 128  # code points that share a row of the second table; of 32 to 512 the smallest tables
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by the arithmetic of the Unicode standard, section 3.12
FLAGS = ("deleted", "becomes_space", "chinese", "nonspacing_mark", "white_space", "punctuation", "decomposes", "hangul")


class Record(NamedTuple):
    """What the tokenizer does with a code point.

    ``lower`` is what is added to it in lower case; ``extra_lower`` is the code point that lower case puts behind it, 0
    for none. ``combining_rank`` is 0 for a starter, and for others grows with the canonical combining class.
    """

    lower: int = 0
    extra_lower: int = 0
    flags: int = 0
    combining_rank: int = 0


def scalars() -> Iterator[int]:
    """All code points that a str of UTF-8 can hold."""
    return (code for code in range(CODE_POINTS) if not 0xD800 <= code < 0xE000)


def normalizer(**settings: bool) -> BertNormalizer:
    """A BertNormalizer that does nothing but what is set."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**(off | settings))


def decompose_hangul(code: int) -> str:
    index = code - HANGUL.start
    jamo = [0x1100 + index // 588, 0x1161 + index % 588 // 28, 0x11A7 + index % 28]
    return "".join(map(chr, jamo[:3 if index % 28 else 2]))


def find_decompositions() -> dict[int, str]:
    nfd = NFD()
    found = {code: nfd.normalize_str(chr(code)) for code in scalars()}
    assert all(found[code] == decompose_hangul(code) for code in HANGUL)
    return {code: text for code, text in found.items() if text != chr(code)}


def find_combining_ranks(decompositions: dict[int, str]) -> dict[int, int]:
    """Ranks 1, 2, ... in the order of the combining classes, of the code points that NFD moves past one another."""
    nfd = NFD()

    def is_moved(first: int, second: int) -> bool:
        return nfd.normalize_str("a" + chr(first) + chr(second)) == "a" + chr(second) + chr(first)

    # U+0334 has the lowest class, 1, and U+0345 the highest, 240: every non-starter changes places with one of them.
    movable = [code for code in scalars() if code not in decompositions and (is_moved(code, 0x334)
                                                                             or is_moved(0x345, code))]

    def compare(first: int, second: int) -> int:
        return int(is_moved(first, second)) - int(is_moved(second, first))

    ranks: dict[int, int] = {}
    rank, previous = 0, None
    for code in sorted(movable, key=functools.cmp_to_key(compare)):
        rank += previous is None or compare(previous, code) != 0
        ranks[code] = rank
        previous = code
    return ranks


def find_records(decompositions: dict[int, str]) -> list[Record]:
    clean, chinese = normalizer(clean_text=True), normalizer(handle_chinese_chars=True)
    strip, lowercase = normalizer(strip_accents=True), normalizer(lowercase=True)
    ranks, pre_tokenizer = find_combining_ranks(decompositions), BertPreTokenizer()
    records = [Record()] * CODE_POINTS
    for code in scalars():
        character = chr(code)
        cleaned, lower = clean.normalize_str(character), lowercase.normalize_str(character)
        assert cleaned in ("", " ", character)
        assert 1 <= len(lower) <= 2
        words = [word for word, _ in pre_tokenizer.pre_tokenize_str(f"a{character}b")]
        assert words in (["a", "b"], ["a", character, "b"], [f"a{character}b"])
        is_set = (cleaned == "", cleaned == " ", chinese.normalize_str(character) == f" {character} ",
                  code not in decompositions and strip.normalize_str(character) == "", words == ["a", "b"],
                  len(words) == 3, code in decompositions and code not in HANGUL, code in HANGUL)
        records[code] = Record(ord(lower[0]) - code, ord(lower[1]) if len(lower) == 2 else 0,
                               sum(bit << index for index, bit in enumerate(is_set)), ranks.get(code, 0))
    return records


def rows(values: Iterable[str], width: int = 116) -> str:
    """Comma-separated, in lines of at most ``width`` characters."""
    lines = [""]
    for value in values:
        if len(lines[-1]) + len(value) + 2 > width:
            lines.append("")
        lines[-1] += f"{value}, "
    return "\n".join(f"    {line.rstrip()}" for line in lines)


def main() -> None:
    """Print the header."""
    decompositions = find_decompositions()
    records = find_records(decompositions)
    kinds = list(dict.fromkeys(records))
    assert len(kinds) <= 256
    number = {record: index for index, record in enumerate(kinds)}
    blocks = [tuple(number[record] for record in records[start:start + BLOCK])
              for start in range(0, CODE_POINTS, BLOCK)]
    unique = list(dict.fromkeys(blocks))
    assert len(unique) <= 256
    place = {block: index for index, block in enumerate(unique)}
    own = {code: text for code, text in decompositions.items() if code not in HANGUL}
    flags = "\n".join(f"constexpr uint8_t {name} = {1 << index};" for index, name in enumerate(FLAGS))
    print(f"""\
// What Hugging Face's tokenizers {tokenizers.__version__} does with every code point.
// Written by generate_unicode_tables.py, which explains the fields: change that, not this.
// clang-format off
#pragma once

#include <cstdint>

namespace dendritic_bert::engine {{

{flags}

struct Record {{
  int32_t lower, extra_lower;
  uint8_t flags, combining_rank;
}};

constexpr Record records[{len(kinds)}] = {{
{rows(f"{{{', '.join(map(str, record))}}}" for record in kinds)}
}};

constexpr int code_points_per_block = {BLOCK};
constexpr uint8_t block_of[{len(blocks)}] = {{
{rows(str(place[block]) for block in blocks)}
}};

constexpr uint8_t record_of[{len(unique)}][code_points_per_block] = {{
{rows(text for block in unique for text in block_text(block))}
}};

// Sorted by code point; unused places are 0.
struct Decomposition {{
  uint32_t code_point, parts[4];
}};

constexpr Decomposition decompositions[{len(own)}] = {{
{rows(f"{{{code}, {{{', '.join(str(ord(part)) for part in text)}}}}}" for code, text in own.items())}
}};

}}  // namespace dendritic_bert::engine""")


def block_text(block: tuple[int, ...]) -> list[str]:
    values = list(map(str, block))
    return ["{" + values[0], *values[1:-1], values[-1] + "}"]


if __name__ == "__main__":
    main()
