"""Byte-pair encoding written out: bytes as letters, words of GPT-2, merges one at a time in the order of their list."""

import re
from itertools import pairwise

_PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
BYTES = {byte: chr(byte) for byte in _PLAIN} | {
    byte: chr(256 + k) for k, byte in enumerate(b for b in range(256) if b not in _PLAIN)
}
# GPT-2's words, with [^\W\d_] for letters; a number there is any run of digits
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def merged(text, merges, *, digits_alone):
    """The tokens of a text, as strings; with `digits_alone` every digit is a word before words are looked for."""
    rank = {tuple(merge.split(" ")): k for k, merge in enumerate(merges)}
    pieces = re.findall(r"\d|\D+", text) if digits_alone else [text]
    out = []
    for word in (word for piece in pieces for word in _WORD.findall(piece)):
        letters = [BYTES[byte] for byte in word.encode()]
        while len(letters) > 1:
            pairs = list(pairwise(letters))
            best = min(pairs, key=lambda pair: rank.get(pair, len(rank)))
            if best not in rank:
                break
            place = pairs.index(best)
            letters[place : place + 2] = ["".join(best)]
        out += letters
    return out
