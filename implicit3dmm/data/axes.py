"""Principal axes of heads."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import generate

GRAM_BLOCK = 4096
"""Columns that are cast to double precision at once."""


def neutral_vertices(heads: Heads, subjects: Int[Tensor, " s"]) -> Float[np.ndarray, "s c"]:
    """Vertex coordinates of the subjects' neutral heads, canonical units, a row of 3 v numbers for each."""
    neutral = replace(heads.recipe, expressions=("neutral",), random_expressions=0, moving_share=0.0, swaps=0)
    return np.stack([head.vertices.astype(np.float32).ravel() for head in generate(neutral, subjects.tolist())])


def gram_axes(
    centred: Float[np.ndarray, "s c"],
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, " s"]]:
    """Left singular vectors, in columns, and singular values of a matrix of few rows, largest first.

    From the s x s matrix of the rows' products, summed in double precision: exact, without an s x c decomposition.
    """
    gram = np.zeros((len(centred), len(centred)))
    for start in range(0, centred.shape[1], GRAM_BLOCK):
        block = centred[:, start : start + GRAM_BLOCK].astype(np.float64)
        gram += block @ block.T
    squared, left = np.linalg.eigh(gram)
    return left[:, ::-1], np.sqrt(squared[::-1].clip(min=0))
