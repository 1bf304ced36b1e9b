"""Round numbers along an axis."""

import math

import numpy as np

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LIMITS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def linear_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten within [low, high], at most `count` + 1 of them."""
    step = _round_up((high - low) / count, _STEPS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def limit_ticks(limit: float) -> list[float]:
    """Four to seven round numbers from 0 to a positive limit; ends with the limit where that is round."""
    spans = [limit / (step * 10.0 ** (math.floor(math.log10(limit)) - 1)) for step in (*_STEPS, 20.0)]
    whole = [round(span) for span in spans if 3 <= round(span) <= 6 and abs(span - round(span)) < 1e-6]
    if not whole:
        return linear_ticks(0.0, limit, count=4)
    count = max(whole, key=lambda intervals: (intervals <= 5, intervals))
    return [limit * index / count for index in range(count + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], low positive; with their doubles and fives where they are few.

    Evenly spaced ticks where even those are fewer than two.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return ticks if len(ticks) > 1 else linear_ticks(low, high)


def round_limit(value: float) -> float:
    """The first round number (1, 1.5, 2, 3, ... times a power of ten) that is not below a positive value."""
    return _round_up(value, _LIMITS)


def tick_labels(ticks: list[float]) -> list[str]:
    """The ticks as text, all with the decimals that the finest needs; very large and small ones as 1e-05."""
    sizes = [abs(tick) for tick in ticks if tick != 0]
    if sizes and (max(sizes) >= 1e6 or max(sizes) < 1e-3):
        return [f"{tick:.3g}" for tick in ticks]
    if sizes and max(sizes) / min(sizes) > 99:
        return [f"{tick:.6g}" for tick in ticks]
    decimals = next((d for d in range(7) if np.allclose(np.round(ticks, d), ticks, rtol=1e-6, atol=0)), 7)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _round_up(value: float, steps: tuple[float, ...]) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * (1 - 1e-9))
