"""Progress on standard error: a bar on a terminal, else a few lines."""

from __future__ import annotations

import sys
import time

_BAR_WIDTH = 28
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0


class Status:
    """Shows what a long command is doing.

    On a terminal one line is redrawn in place; elsewhere a phase gets a line at
    its start and another every half a minute.
    """

    def __init__(self, stream=None):
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._label = ""
        self._total = self._done = 0
        self._started = self._shown = 0.0
        self._drawn = False

    def phase(self, label: str, total: int = 0) -> None:
        """Begins a phase of `total` units of work; 0 when unknown."""
        self.clear()
        self._label, self._total, self._done = label, total, 0
        self._started = self._shown = time.monotonic()
        if self._terminal:
            self._draw()
        else:
            self._line(label)

    def advance(self, units: int, label: str = "") -> None:
        """Adds finished units; `label` replaces the phase's."""
        self.update(self._done + units, self._total, label)

    def update(self, done: int, total: int, label: str = "") -> None:
        """Sets how much is done."""
        self._done, self._total = done, total
        self._label = label or self._label
        pause = _REDRAW_SECONDS if self._terminal else _LINE_SECONDS
        if time.monotonic() - self._shown < pause:
            return
        self._shown = time.monotonic()
        if self._terminal:
            self._draw()
        else:
            self._line(self._text())

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self.clear()
        self._line(text)

    def clear(self) -> None:
        """Removes the bar."""
        if self._drawn:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._drawn = False

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _draw(self) -> None:
        bar = ""
        if self._total:
            filled = _BAR_WIDTH * min(self._done, self._total) // self._total
            bar = "[" + "#" * filled + "." * (_BAR_WIDTH - filled) + "] "
        self._stream.write("\r\033[K" + bar + self._text())
        self._stream.flush()
        self._drawn = True

    def _text(self) -> str:
        if not self._total:
            return self._label
        text = f"{100 * self._done // self._total:3d}%  {self._label}"
        elapsed = time.monotonic() - self._started
        if self._done and elapsed > 1.0:
            text += f", {elapsed * (self._total - self._done) / self._done:.0f} s left"
        return text
