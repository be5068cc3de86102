"""One self-contained HTML page about a calibrated model: `python -m ratequant report`."""
