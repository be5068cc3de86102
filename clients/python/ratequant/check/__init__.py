"""Does a stored calibration still fit? `python -m ratequant check`."""
