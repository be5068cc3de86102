"""Makes the frontier: perplexity against effective bits, of every quantizer alone
and across them; see `run`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from importlib import resources
from pathlib import Path

from figures import Maker, difference, find_row, markdown_table, prepare
from inputs import ROOT, model_folder
from loss_folder import LossFolder
from ratequant import report
from ratequant.evaluate import Evaluation
from ratequant.evaluate.bundle import write_json
from ratequant.evaluate.configurations import Configuration
from ratequant.evaluate.map_source import ANY
from ratequant.evaluate.paired import BLOCK_TOKENS
from ratequant.evaluate.status import Status
from ratequant.report.marker import marker
from ratequant.report.markup import Markup, element, svg
from ratequant.report.palette import quantizer_classes
from ratequant.report.perplexity import HEIGHT, WIDTH, plot_perplexity
from ratequant.services import Services

BITS = (1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0)
# kivi's larger groups need pages as long as they are.
PAGE_TOKENS = 64
ALL = ("rtn", "kivi", "kivi:group_size=64", "quarot", "turboquant", "tcq")
MIX = "across all"
# With each channel's mean taken off K and V.
CENTRED_MIX = "across all, means subtracted"
CENTRED_ALONE = "tcq, means subtracted"
# At an effective bits, how much more perplexity than fp32's we want at most.
GOALS = {2.0: 0.10, 2.5: 0.03, 3.0: 0.01}
_LEGEND_HEIGHT, _LEGEND_START = 54.0, 20.0
# Times fp32's perplexity: worse points would flatten the others, and are in the table.
_HIGHEST = 1.45


def configurations(quantizers: tuple[str, ...], bits: tuple[float, ...] = BITS) -> list[Configuration]:
    """Uniform and loss-projected maps of each quantizer, and the mix."""
    pairs = [(ANY, "loss-projected")] + [(q, s) for q in quantizers for s in ("uniform", "loss-projected")]
    return [Configuration(q, s, "effective_bits", b) for b in bits for q, s in pairs]


def measure(maker: Maker, losses: LossFolder, bits: tuple[float, ...] = BITS) -> Evaluation:
    """All points, in one evaluation, the mixes named MIX and CENTRED_MIX."""
    plain, centred = (
        maker.evaluate(
            quantizers=ALL,
            effective_bits=bits,
            page_tokens=PAGE_TOKENS,
            subtract_means=means,
            wanted=configurations(("tcq",) if means else ALL, bits),
            known=losses,
        )
        for means in (False, True)
    )
    rows = _renamed(plain.rows, {ANY: MIX})
    rows += _renamed(centred.rows[1:], {ANY: CENTRED_MIX, "tcq": CENTRED_ALONE})  # one fp32 is enough
    return dataclasses.replace(plain, rows=rows, losses=plain.losses | centred.losses)


def _renamed(rows: list[dict], names: dict[str, str]) -> list[dict]:
    return [row | {"quantizer": names.get(row["quantizer"], row["quantizer"])} for row in rows]


def frontier_table(found: Evaluation, bits: tuple[float, ...] = BITS) -> str:
    """A line for each budget: the loss-projected map of every series, the uniform
    one behind it in brackets, and paired differences."""
    singles = (*ALL, CENTRED_ALONE)
    lines = []
    for budget in bits:
        mix, centred = (find_row(found, name, budget) for name in (MIX, CENTRED_MIX))
        alone = [row for name in ALL if (row := find_row(found, name, budget))]
        best = min(alone, key=lambda row: row["perplexity"], default=None)
        lines.append(
            [f"{budget:g}", *(_single(found, name, budget) for name in singles), _perplexity(mix), _perplexity(centred),
             _difference(found, mix, best), _difference(found, centred, mix)]
        )  # fmt: skip
    header = [
        "effective bits", *singles, MIX, CENTRED_MIX, "across all minus the best alone", "means subtracted minus not",
    ]  # fmt: skip
    fp32 = found.rows[0]
    return (
        f"fp32 {fp32['perplexity']:.2f}, {fp32['tokens']:,} scored tokens. Loss-projected, in brackets uniform at the same "
        f"budget; differences in nats per token ± standard error (paired, blocks of {BLOCK_TOKENS} tokens).\n\n"
    ) + markdown_table(header, lines)


def _single(found: Evaluation, name: str, bits: float) -> str:
    row, uniform = (find_row(found, name, bits, strategy) for strategy in ("loss-projected", "uniform"))
    return _perplexity(row) if uniform is None else f"{_perplexity(row)} ({_perplexity(uniform)})"


def _perplexity(row: dict | None) -> str:
    return "–" if row is None else f"{row['perplexity']:.2f}"


def _difference(found: Evaluation, row: dict | None, other: dict | None) -> str:
    if row is None or other is None:
        return ""
    mean, stderr = difference(found, row, other)
    return f"{mean:+.4f} ± {stderr:.4f}"


def frontier_picture(rows: list[dict]) -> Markup:
    """A picture that stands alone: SVG with its colours inside.

    Raises:
      ValueError: no row can be drawn.
    """
    classes = quantizer_classes(ALL) | {MIX: "q-any", CENTRED_ALONE: "q-b", CENTRED_MIX: "q-c"}
    goals = [(bits, rows[0]["perplexity"] * (1 + loss)) for bits, loss in GOALS.items()]
    rows = [row for row in rows if row["quantizer"] in classes or row["strategy"] == "fp32"]
    plot = plot_perplexity(rows, classes, _HIGHEST, goals)
    if plot is None:
        raise ValueError("no row of the frontier can be drawn")
    style = resources.files(report).joinpath("style.css").read_text(encoding="utf-8")
    height = HEIGHT + _LEGEND_HEIGHT
    picture = svg(
        WIDTH,
        height,
        "Perplexity against effective bits, 1.5 to 5: each quantizer alone and across quantizers",
        element("style", Markup(style)),
        element("rect", width=WIDTH, height=height, fill="var(--surface)"),
        *_legend(plot.names, classes),
        element("g", plot.marks, transform=f"translate(0 {_LEGEND_HEIGHT:g})"),
        scale=False,
    )
    return Markup(picture.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" ', 1))


def _legend(names: list[str], classes: dict[str, str]) -> list[Markup]:
    """A point of each series, then what filled and hollow points and the arrows
    mean; on as many lines as that takes."""
    entries = [(name, classes[name], False) for name in names]
    entries += [("loss-projected", "q-uniform", False), ("uniform", "q-uniform", True)]
    x, y, parts = _LEGEND_START, 20.0, []
    for text, class_, hollow in entries:
        length = 30.0 + 6.5 * len(text)
        if x + length > WIDTH:
            x, y = _LEGEND_START, y + 20.0
        parts.append(marker(x, y, class_, hollow=hollow))
        parts.append(element("text", text, x=x + 10, y=y + 4, class_="tick"))
        x += length
    text = "goals: " + ", ".join(f"{loss:+.0%} at {bits:g} bits" for bits, loss in GOALS.items())
    parts.append(element("path", d=f"M{x - 6:.1f},{y - 3:.1f}h14m-7,0v7m-3,-3l3,3l3,-3", class_="goal"))
    parts.append(element("text", text, x=x + 14, y=y + 4, class_="tick"))
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "figures")
    arguments = parser.parse_args()
    prepare("frontier", arguments.out)
    with Services(model_folder().parent, arguments.out / "data") as services:
        found = measure(Maker(services, arguments.out, Status()), LossFolder(arguments.out / "frontier-losses"))
    write_json(arguments.out / "frontier.json", found.rows)
    (arguments.out / "frontier.svg").write_text(frontier_picture(found.rows), encoding="utf-8")
    text = frontier_table(found)
    (arguments.out / "frontier.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
