"""Numbers as people read them."""

import datetime
import math


def format_number(value: float) -> str:
    """Formats a number: four digits, or all of its whole part."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """Formats a duration: "0:01:05", or "0.42 s" below ten seconds."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    return str(datetime.timedelta(seconds=round(seconds)))


def format_classes(count: int) -> str:
    """Formats a number of classes; images without classes have no labels."""
    return f"{count:,} classes" if count else "no labels"
