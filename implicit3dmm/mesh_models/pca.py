"""Principal components of registered heads: the linear model that every other has to be better than."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.linalg import cho_factor, cho_solve

from implicit3dmm.config import to_mapping
from implicit3dmm.data.axes import gram_axes, neutral_vertices
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.mesh_models.weights import checked_header, has_format, read_arrays, write_weights
from implicit3dmm.models import FRAME

FORMAT = "implicit3dmm-pca"
FORMAT_VERSION = 1
Shows = Literal["neutral", "all", "additive"]
"""Which heads a model is made of."""

ARRAYS = ("mean", "components", "deviations", "triangles", "cap", "regions")


@dataclass(frozen=True, eq=False)
class PCAModel:
    """A Gaussian of vertices in the canonical frame: mean plus independent orthonormal components.

    Coefficients are in standard deviations of the training heads, so that a likely head has normal ones.
    """

    mean: Float[np.ndarray, "v 3"]
    """Canonical units."""
    components: Float[np.ndarray, "k v 3"]
    """Orthonormal over the 3 v coordinates, by falling spread; an additive model has two such sets in turn."""
    deviations: Float[np.ndarray, " k"]
    """Standard deviation of the heads along each component, canonical units of the 3 v space."""
    triangles: Int[np.ndarray, "t 3"]
    cap: Bool[np.ndarray, " t"]
    """The triangles that close the neck, where no scan has a surface."""
    regions: UInt8[np.ndarray, " v"]
    """Index into `heads.template.REGIONS` for each vertex."""
    info: Mapping[str, Any]
    """Name, licence, corpus recipe, number of heads and share of their variance, as written in the file."""

    @classmethod
    def of(
        cls,
        heads: Heads,
        *,
        components: int,
        split: str = "train",
        name: str = "pca",
        shows: Shows = "neutral",
        expression_components: int = 0,
    ) -> "PCAModel":
        """The exact components of heads, in metric coordinates (no coordinate is standardised).

        Args:
            heads: a corpus or a recipe; no samples are read.
            components: how many are kept, less than the number of heads.
            split: whose heads.
            name: of the model.
            shows: which heads: those at rest, all records alike, or those at rest and, by components of their own, what
                expressions add to them (the additive model of Blanz and Vetter's kind).
            expression_components: number of the latter.

        Raises:
            InputError: the split has too few heads for so many components, or the numbers do not go together.
        """
        if (shows == "additive") != (expression_components > 0):
            raise InputError(
                f"{expression_components} expression components of a model that shows {shows} heads; give some to an "
                "additive model, and to no other"
            )
        rows, moved = _rows(heads, split, shows)
        count = len(rows)
        if not 1 <= components < count:
            raise InputError(
                f"{components} components asked of {count} {split} heads; fewer than heads were expected; ask for "
                "fewer, or give a corpus with more heads"
            )
        if expression_components > len(moved):
            raise InputError(
                f"{expression_components} expression components asked of {len(moved)} {split} heads that move; ask for "
                "fewer, or give a corpus with more expressions"
            )
        mean = rows.mean(0, dtype=np.float64).astype(np.float32)
        rows -= mean
        axes, spread, share = _axes(rows, components)
        deviations = spread / np.sqrt(count - 1)
        if expression_components:
            added, strength, _ = _axes(moved, expression_components)
            axes = np.concatenate([axes, added])
            deviations = np.concatenate([deviations, strength / np.sqrt(len(moved))])
        template = heads.source.template
        info = {
            "name": name,
            "licence": f"weights: MIT; made from {heads.recipe.source}: {heads.source.licence}",
            "recipe": to_mapping(heads.recipe),
            "heads": count + len(moved),
            "shows": shows,
            "expression_components": len(added) if expression_components else 0,
            "variance_share": share,
        }
        return cls(
            mean=mean.reshape(-1, 3),
            components=axes.reshape(len(axes), -1, 3),
            deviations=deviations.astype(np.float32),
            triangles=template.triangles,
            cap=template.cap,
            regions=template.regions,
            info=info,
        )

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info["name"]

    @property
    def skin(self) -> Int[np.ndarray, "s 3"]:
        """The triangles that a scan can show: all but the neck's cap."""
        return self.triangles[~self.cap]

    @cached_property
    def basis(self) -> Float[np.ndarray, "c k"]:
        """Motion of each of the 3 v coordinates with each coefficient; a coordinate's row is contiguous."""
        scaled = self.components.reshape(len(self.components), -1) * self.deviations[:, None]
        return np.ascontiguousarray(scaled.T)

    def vertices(self, coefficients: Float[np.ndarray, " c"]) -> Float[np.ndarray, "v 3"]:
        """Vertices in canonical units.

        Args:
            coefficients: standard deviations; those that are not given are 0.
        """
        used = self.basis[:, : len(coefficients)] @ coefficients.astype(self.basis.dtype)
        return self.mean + used.reshape(-1, 3)

    def mesh(self, coefficients: Float[np.ndarray, " c"]) -> Mesh:
        """The closed head in canonical units."""
        return Mesh(self.vertices(coefficients), self.triangles)

    def project(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " k"]:
        """Coefficients of the nearest head of the model to registered vertices, in least squares over coordinates.

        Args:
            vertices: in the canonical frame and the order of the model.

        Raises:
            InputError: their number is not the model's.
        """
        if vertices.shape != self.mean.shape:
            raise InputError(
                f"vertices of shape {vertices.shape} given; {self.name} has {self.mean.shape}; give a head of the "
                f"source {self.info['recipe']['source']}"
            )
        along = self.basis.T @ (vertices - self.mean).ravel()
        if self.info.get("shows") == "additive":
            return cho_solve(self._normal_matrix, along)
        return along / np.square(self.deviations)

    @cached_property
    def _normal_matrix(self) -> tuple[Float[np.ndarray, "k k"], bool]:
        """Cholesky factor of the products of the basis; people's and expressions' components are not orthogonal."""
        return cho_factor(self.basis.T.astype(np.float64) @ self.basis)

    @property
    def factors(self) -> tuple[str, ...]:
        """What heads can share: "identity" and "expression" in an additive model, nothing in others."""
        return ("identity", "expression") if self.info.get("expression_components") else ()

    def place(self, factor: str) -> slice:
        """Where among the coefficients those of a factor stand.

        Raises:
            InputError: there is no such factor.
        """
        if factor not in self.factors:
            raise InputError(f"no factor {factor!r} in {self.name}; additive models have identity and expression")
        people = len(self.deviations) - self.info["expression_components"]
        return slice(0, people) if factor == "identity" else slice(people, None)

    def sample(self, count: int, *, temperature: float = 1.0, rng: np.random.Generator) -> Float[np.ndarray, "n k"]:
        """Draws coefficients; `temperature` scales the standard deviations (0 gives the mean, 1 the heads' spread)."""
        return temperature * rng.normal(size=(count, len(self.deviations)))

    def first(self, count: int) -> "PCAModel":
        """The model with the first `count` components alone.

        Raises:
            InputError: it has not so many.
        """
        if not 1 <= count <= len(self.deviations):
            raise InputError(f"{count} components asked for; {self.name} has {len(self.deviations)}; give 1 to these")
        return replace(self, components=self.components[:count], deviations=self.deviations[:count])


def _rows(heads: Heads, split: str, shows: Shows) -> tuple[Float[np.ndarray, "s c"], Float[np.ndarray, "m c"]]:
    """Coordinates of the heads that a model shows, and what expressions add where that is told apart."""
    if shows == "neutral":
        rows = neutral_vertices(heads, heads.subjects(split))
        return rows, rows[:0]
    registered = RegisteredHeads.of(heads, split)
    rows = registered.vertices.reshape(len(registered), -1)
    if shows == "all":
        return rows, rows[:0]
    still = registered.rest == np.arange(len(registered))
    return rows[still], (rows - rows[registered.rest])[~still]


def _axes(
    rows: Float[np.ndarray, "s c"], count: int
) -> tuple[Float[np.ndarray, "k c"], Float[np.ndarray, " k"], float]:
    """At most `count` principal axes, their singular values and the share of the squares that they hold."""
    left, spread = gram_axes(rows)
    # Rounding must not be taken for shape: unlike the Gram matrix, the axes are scaled by the spread's inverse.
    rank = min(count, int((spread > spread[0] * np.finfo(np.float32).eps).sum()))
    axes = (left[:, :rank] / spread[:rank]).T.astype(np.float32) @ rows
    return axes, spread[:rank], float(np.square(spread[:rank]).sum() / np.square(spread).sum())


def save_pca(path: str | Path, model: PCAModel) -> None:
    """Writes a model into one safetensors file; it is replaced as a whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    header = {"format": FORMAT, "version": FORMAT_VERSION, "frame": FRAME, "info": dict(model.info)}
    write_weights(path, {name: getattr(model, name) for name in ARRAYS}, header)


def is_pca_file(path: str | Path) -> bool:
    """Whether a file holds a PCA model; its header alone is read, and what is no safetensors file is none."""
    return has_format(path, FORMAT)


def load_pca(path: str | Path) -> PCAModel:
    """Reads a model that `save_pca` wrote.

    Raises:
        InputError: there is no such file, or it is damaged, foreign or of a newer version.
    """
    what = "PCA model; give a file that 'implicit3dmm pca' wrote"
    header = checked_header(path, FORMAT, FORMAT_VERSION, {"info"}, what=what)
    model = PCAModel(**read_arrays(path, ARRAYS), info=header["info"])
    _check_shapes(path, model)
    return model


def _check_shapes(path: str | Path, model: PCAModel) -> None:
    count, vertices = len(model.deviations), len(model.mean)
    expected: dict[str, Sequence[int]] = {
        "mean": (vertices, 3),
        "components": (count, vertices, 3),
        "deviations": (count,),
        "triangles": (len(model.cap), 3),
        "regions": (vertices,),
    }
    for name, shape in expected.items():
        if getattr(model, name).shape != shape:
            raise InputError(f"{path}: {name} has shape {getattr(model, name).shape}, not {shape}; get the file again")
