"""A linear model of heads by factors, which an adversarial generator starts from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.data.axes import gram_axes
from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads

LEAST_SPREAD = 1e-3
"""Components with less than this share of the largest one's spread are rounding and noise."""

LabelMeans = Float[np.ndarray, "_ v 3"]


@dataclass(frozen=True, eq=False)
class LinearStart:
    """Heads as the mean plus a sum over factors; all codes are about standard normal."""

    components: dict[str, Float[np.ndarray, "d v 3"]]
    """What one unit of each number of a factor's code does, canonical units; a factor that moves nothing has none."""
    label_codes: dict[str, Float[np.ndarray, "k d"]]
    """Code of each label of each factor that has labels."""

    @classmethod
    def of(
        cls,
        heads: RegisteredHeads,
        patch: Int[np.ndarray, " v"],
        labels: Mapping[str, Int[np.ndarray, " r"]],
        sizes: Mapping[str, int],
        chosen: Int[np.ndarray, " n"],
    ) -> "LinearStart":
        """Splits the displacements of heads from their mean among factors, and takes the components of each part.

        A factor has the mean displacement of its label, of what the factors before it leave. What is left in the end,
        such as expressions without a name, goes in even parts to the factors that have heads without a label, or to the
        last of `sizes` where there is none such.

        Args:
            heads: to learn from, all of them.
            patch: numbers of the vertices that count.
            labels: by factor, counted from 0, or `UNKNOWN`.
            sizes: of the codes, by factor; those without labels may be among them.
            chosen: rows of the heads whose components are taken.
        """
        left = heads.vertices[chosen][:, patch] - heads.mean[patch]
        means: dict[str, LabelMeans] = {}
        movements = {name: np.zeros_like(left) for name in sizes}
        for name, own in labels.items():
            means[name] = _label_means(heads, patch, own, [(labels[other], each) for other, each in means.items()])
            movements[name] += _looked_up(means[name], own[chosen])
            left -= movements[name]
        *factors, last = [name for name, size in sizes.items() if size]
        incomplete = [name for name in factors if name not in labels or (labels[name] == UNKNOWN).any()] or [last]
        for name in incomplete:
            movements[name] += left / len(incomplete)
        components = {name: _components(each, sizes[name]) for name, each in movements.items() if each.any()}
        codes = {name: _codes(each, components[name]) for name, each in means.items() if name in components}
        return cls(components, codes)


def _components(displacements: Float[np.ndarray, "n v 3"], count: int) -> Float[np.ndarray, "d v 3"]:
    """Principal components about zero, each as long as the root mean square of the heads along it."""
    rows = displacements.reshape(len(displacements), -1)
    left, spread = gram_axes(rows)
    rank = min(count, int((spread > LEAST_SPREAD * spread[0]).sum()))
    return (left[:, :rank].T @ rows / len(rows) ** 0.5).reshape(rank, -1, 3).astype(np.float32)


def _codes(
    displacements: Float[np.ndarray, "k v 3"], components: Float[np.ndarray, "d v 3"]
) -> Float[np.ndarray, "k d"]:
    products = np.tensordot(displacements, components, ((1, 2), (1, 2)))
    return (products / np.square(components).sum((1, 2))).astype(np.float32)


def _label_means(
    heads: RegisteredHeads,
    patch: Int[np.ndarray, " v"],
    own: Int[np.ndarray, " r"],
    before: list[tuple[Int[np.ndarray, " r"], LabelMeans]],
) -> LabelMeans:
    """Mean displacement of the heads of each label, less the mean over them of what other factors account for."""
    means = np.zeros((own.max() + 1, len(patch), 3), np.float32)
    for label in np.unique(own[own != UNKNOWN]):
        rows = np.flatnonzero(own == label)
        means[label] = _mean(heads.vertices[rows][:, patch]) - heads.mean[patch]
        for labels, moved in before:
            means[label] -= _mean(_looked_up(moved, labels[rows]))
    return means


def _looked_up(means: LabelMeans, labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n v 3"]:
    return np.where((labels == UNKNOWN)[:, None, None], np.float32(0), means[labels])


def _mean(vertices: Float[np.ndarray, "r v 3"]) -> Float[np.ndarray, "v 3"]:
    return vertices.mean(axis=0, dtype=np.float64).astype(np.float32)
