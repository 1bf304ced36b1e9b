"""Charts of results."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from implicit3dmm.render.curves import plot_curves
from implicit3dmm.render.pictures import Picture


def cumulative_errors(errors_mm: Mapping[str, Float[np.ndarray, " n"]], *, title: str) -> Picture:
    """For each method, the share of the heads whose error is at most so many millimetres.

    Args:
        errors_mm: one error for each head, by method; NaN for a head that failed, which counts among the
            heads but is never reached.
        title: above the chart.

    Returns:
        (h, w, 3) picture.
    """
    curves = {name: distribution_steps(errors) for name, errors in errors_mm.items()}
    return plot_curves(curves, title=title, xlabel="error of a head, mm", ylabel="share of the heads")


def distribution_steps(errors: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The empirical distribution function of n errors from zero on, as a line that rises by 1 / n at each.

    Args:
        errors: not negative; NaN for what is never reached.

    Returns:
        Errors and shares, 2 n + 1 of each.
    """
    share = np.arange(len(errors) + 1) / len(errors)
    return np.concatenate([[0.0], np.repeat(np.sort(errors), 2)]), np.repeat(share, 2)[:-1]
