"""Turns WikiText's pre-tokenised text back into plain text.

WikiText (Merity et al.) separates punctuation and clitics with spaces and writes
`@-@`, `@,@` and `@.@` inside words and numbers. A language model has never seen
text like that, so measurements on it are made on the plain form. Only tests and
figures use this; the product takes plain text.

With the demo model's tokenizer the reference figures' tokens come out exactly:
`cal` is the first 8 blocks of 256 tokens of the validation text, and row r of `A`
is block 64 r of 512 tokens of the test text (`test-head.txt` holds rows 0 to 2).
"""

from __future__ import annotations

import re

# Punctuation and clitics that WikiText puts a space before ("don 't", "Teddy 's").
_SPACE_BEFORE = re.compile(r" ([.,;:!?)]|'(?:s|t|re|ve|ll|d|m)\b)")
# The two quotes of a pair look the same; a pair never spans lines.
_QUOTED = re.compile(r'" ([^"\n]*?) "')
# Blank lines hold nothing but the space every WikiText line begins with.
_LINE_BREAK = re.compile(r" *\n[ \n]*")


def detokenize(text: str) -> str:
    """Returns WikiText `text` as plain text.

    Lines end in " \\n" and blank lines are dropped, as in the reference figures.
    """
    for joined in "-,.":
        text = text.replace(f" @{joined}@ ", joined)
    text = text.replace("<unk>", "unk")
    text = _SPACE_BEFORE.sub(r"\1", text)
    text = text.replace("( ", "(")
    text = _QUOTED.sub(r'"\1"', text)
    return _LINE_BREAK.sub(" \n", text)
