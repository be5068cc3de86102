"""The terminal's table of an evaluation's rows."""

from __future__ import annotations

from ratequant.evaluate.paired import BLOCK_TOKENS

_HEADER = ("quantizer", "strategy", "code bits", "eff. bits", "B/token", "perplexity", "ΔNLL to uniform", "ΔNLL to fp32")
_LEFT_COLUMNS = 2


def format_table(rows: list[dict]) -> str:
    """A table for people: one block for each budget and quantizer, with a
    footnote on units."""
    lines = [_HEADER]
    groups = []
    for row in rows:
        groups.append((row["budget_kind"], row["budget"], row["quantizer"]))
        lines.append(
            (
                row["quantizer"],
                row["strategy"],
                f"{row['code_bits']:.2f}",
                f"{row['effective_bits']:.2f}",
                f"{row['bytes_per_token']:,.0f}",
                f"{row['perplexity']:.2f}",
                format_difference(row["nll_diff_to_uniform"], row["nll_diff_stderr"]),
                format_difference(row["nll_diff_to_fp"], row["nll_diff_to_fp_stderr"]),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    out = [_format_line(lines[0], widths), "  ".join("-" * width for width in widths)]
    previous_group, previous_kind = None, None
    for group, line in zip(groups, lines[1:], strict=True):
        if group != previous_group and previous_group is not None:
            out.append("")
        if group[0] == "effective_bits" and previous_kind != "effective_bits":
            out.append("at equal effective bits, everything counted:")
        previous_group, previous_kind = group, group[0]
        out.append(_format_line(line, widths))
    out += ["", footnote(rows)]
    return "\n".join(out)


def footnote(rows: list[dict]) -> str:
    """What the columns mean."""
    tokens = rows[0]["tokens"] if rows else 0
    return (
        f"{tokens:,} scored tokens. ΔNLL in nats per token ± standard error, paired by token, "
        f"clustered in blocks of {BLOCK_TOKENS} tokens; "
        "'to uniform' compares with uniform bits at the same budget."
    )


def format_difference(mean: float | None, stderr: float | None) -> str:
    """ "+0.0123 ± 0.0045", or "" where there is none."""
    if mean is None:
        return ""
    return f"{mean:+.4f}" + (f" ± {stderr:.4f}" if stderr is not None else "")


def _format_line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = [
        cell.ljust(width) if column < _LEFT_COLUMNS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
