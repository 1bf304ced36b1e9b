"""What networks of registered heads are trained on, wherever it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from implicit3dmm.config import to_mapping
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.lamm_layout import LAMMFolder
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.mesh_models.topology import Topology


@dataclass(frozen=True)
class TrainingMeshes:
    """Meshes of one topology; nothing is made or read before it is asked for."""

    name: str
    count: int
    """Of people."""
    topology: Callable[[int], Topology]
    """With so many control points in each region, where the meshes have none of their own."""
    registered: Callable[[int | None], RegisteredHeads]
    """The meshes of the first so many people, or of all."""
    origin: Mapping[str, Any]
    """What a weights file says of them."""

    @classmethod
    def of(cls, heads: "Heads | LAMMFolder") -> "TrainingMeshes":
        """The training split of a corpus or a recipe, or a folder in LAMM's layout."""
        if isinstance(heads, LAMMFolder):
            return cls(
                heads.name,
                len(heads.paths),
                lambda controls: Topology.of_folder(heads, controls=controls),
                heads.registered,
                {
                    "licence": f"trained on the meshes of {heads.name}, whose licence holds for the weights",
                    "meshes": heads.name,
                    "mm_per_unit": heads.mm_per_unit,
                },
            )
        recipe, source = heads.recipe, heads.source
        return cls(
            heads.name,
            len(heads.subjects("train")),
            lambda controls: Topology.of(source.template, controls=controls),
            lambda subjects: RegisteredHeads.of(heads, "train", subjects=subjects),
            {"licence": f"weights: MIT; trained on {recipe.source}: {source.licence}", "recipe": to_mapping(recipe)},
        )
