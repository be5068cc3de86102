#!/usr/bin/env python3
"""Makes the demo's texts from the Python manual that every Python carries.

    make_text.py OUT_DIR

Writes OUT_DIR/calibration.txt and OUT_DIR/evaluation.txt out of `pydoc_data.topics`.
Some topics quote others whole ("compound" holds "try"), so only topics that share
no paragraph are used, the longer one of a pair; what the model is evaluated on is
nowhere in what it was calibrated on. One Python version always gives the same files.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from pydoc_data.topics import topics

# Shorter paragraphs ("See also:") repeat without being quotations.
_PARAGRAPH_CHARACTERS = 60
# Every third topic goes to the evaluation text.
_EVALUATION_STRIDE = 3
# 16 x 512 calibration tokens and 4,096 evaluation tokens, at 5 characters a token.
_LEAST_CALIBRATION, _LEAST_EVALUATION = 16 * 512 * 5, 4096 * 5


def paragraphs(text: str) -> set[str]:
    """The paragraphs of `text` that are long enough to be told apart, spaces and case evened out."""
    evened = (" ".join(p.split()).casefold() for p in re.split(r"\n\s*\n", text))
    return {p for p in evened if len(p) >= _PARAGRAPH_CHARACTERS}


def distinct_topics(texts: dict[str, str]) -> list[str]:
    """Names of topics of which no two share a paragraph, longest first chosen; sorted by name."""
    chosen, seen = [], set()
    for name in sorted(texts, key=lambda name: (-len(texts[name]), name)):
        own = paragraphs(texts[name])
        if own.isdisjoint(seen):
            chosen.append(name)
            seen |= own
    return sorted(chosen)


def split(texts: dict[str, str]) -> tuple[list[str], list[str]]:
    """Topic names of the calibration and of the evaluation text."""
    names = distinct_topics(texts)
    held_out = names[_EVALUATION_STRIDE - 1 :: _EVALUATION_STRIDE]
    return [name for name in names if name not in held_out], held_out


def write(path: Path, names: list[str], least: int) -> None:
    """Writes the topics `names` one after the other; the file appears whole or not at all."""
    text = "\n\n".join(topics[name].strip() for name in names) + "\n"
    if len(text) < least:
        raise SystemExit(
            f"make_text: this Python's manual gives {len(text)} characters for {path.name}, "
            f"{least} are needed"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def make(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    calibration, evaluation = split(topics)
    write(out / "calibration.txt", calibration, _LEAST_CALIBRATION)
    write(out / "evaluation.txt", evaluation, _LEAST_EVALUATION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="folder to write to, made when missing")
    make(parser.parse_args().out_dir)


if __name__ == "__main__":
    main()
