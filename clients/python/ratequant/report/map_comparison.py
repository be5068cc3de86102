"""Two bit maps side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ratequant.quantizer import quantizer_name
from ratequant.report.estimate import Estimate, format_estimate
from ratequant.report.grid import Cell, grid, group_name
from ratequant.report.heatmap import choice_name
from ratequant.report.markup import Markup, element, join, table
from ratequant.report.palette import difference_class, difference_scale, legend, stripe_swatch
from ratequant.report.prediction import Prediction
from ratequant.report.tabs import tabs
from ratequant.v1 import bit_map_pb2


def compare_maps(
    bit_maps: Mapping[str, bit_map_pb2.BitMap], predictions: Mapping[str, Prediction], classes: dict[str, str]
) -> Markup:
    """Facts of all maps in a table, then the first against each of the others,
    group by group. `predictions` are by calibration: each gives the maps' loss
    as it measured it."""
    (first, base), *others = bit_maps.items()
    panels = [(label, _difference(first, base, label, other, classes)) for label, other in others]
    # A single panel has no tab that names it.
    heading = f"{others[0][0]} against {first}" if len(others) == 1 else f"Against {first}"
    return join(_facts(bit_maps, predictions), element("h3", heading), tabs("map-comparison", panels))


def _facts(bit_maps: Mapping[str, bit_map_pb2.BitMap], predictions: Mapping[str, Prediction]) -> Markup:
    facts: list[tuple[str, Callable[[bit_map_pb2.BitMap], str]]] = [
        ("effective bits", lambda m: f"{m.effective_bits:.3f}"),
        ("code bits", lambda m: f"{m.code_bits:.3f}"),
        ("bytes per token", lambda m: f"{m.bytes_per_token:,.0f}"),
        ("quantizers", lambda m: ", ".join(map(quantizer_name, m.quantizers))),
        ("objective", lambda m: _policy_name(bit_map_pb2.Policy.Objective.Name(m.policy.objective))),
        ("strategy", lambda m: _policy_name(bit_map_pb2.Policy.Strategy.Name(m.policy.strategy))),
        ("calibration", lambda m: m.calibration.rpartition("/")[2][:12]),
        ("bit map", lambda m: m.name.rpartition("/")[2][:12]),
    ]
    rows: list[list[object]] = []
    for label, prediction in predictions.items():
        name = "predicted loss, nats per token" + (f", by {label}" if len(predictions) > 1 else "")
        rows.append([name, *(_loss(prediction, bit_map) for bit_map in bit_maps.values())])
    rows += [[name, *map(fact, bit_maps.values())] for name, fact in facts]
    return table(["", *bit_maps], rows)


def _loss(prediction: Prediction, bit_map: bit_map_pb2.BitMap) -> str:
    if not prediction.knows(bit_map):
        return "not measured"
    return format_estimate(Estimate.total(prediction.map_losses(bit_map)))


def _policy_name(name: str) -> str:
    return name.lower().replace("_", "-")


def _difference(
    first: str, base: bit_map_pb2.BitMap, label: str, other: bit_map_pb2.BitMap, classes: dict[str, str]
) -> Markup:
    groups = range(len(base.width))
    changed = [choice_name(base, group) != choice_name(other, group) for group in groups]

    def cell(group: int) -> Cell:
        before, after = base.width[group], other.width[group]
        change = after - before
        text = f"{change:+d}".replace("-", "−") if change else ""
        names = f"{choice_name(base, group)}, {before} bits → {choice_name(other, group)}, {after} bits"
        stripe = classes.get(choice_name(other, group)) if changed[group] else None
        return Cell(difference_class(change), text, f"{group_name(base.geometry, group)}: {names}", stripe)

    wider = sum(other.width[group] > base.width[group] for group in groups)
    narrower = sum(other.width[group] < base.width[group] for group in groups)
    counts = table(
        [f"of {len(groups)} groups", "groups"],
        [[f"wider in {label}", wider], [f"narrower in {label}", narrower],
         ["of another quantizer", sum(changed)],
         ["the same", sum(not changed[g] and other.width[g] == base.width[g] for g in groups)]],
    )  # fmt: skip
    picture = grid(base.geometry, f"Bits of {label} minus bits of {first}, every layer and head", cell)
    names = dict.fromkeys(choice_name(other, group) for group in groups if changed[group])
    stripes = legend((f"now {name}", stripe_swatch(classes[name])) for name in names if name in classes)
    return join(difference_scale("fewer bits ", " more bits"), stripes if names else None, picture, counts)
