"""The heads that a recipe names, each made when it is asked for; evaluation needs no samples of them on disk."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from implicit3dmm.data.recipe import SPLITS, Head, Recipe, generate
from implicit3dmm.data.sources import HeadSource, open_source
from implicit3dmm.geometry.mesh import Mesh


class Heads:
    """Heads by recipe. A record is one subject under one expression; records are numbered subject by subject."""

    def __init__(self, recipe: Recipe, *, name: str):
        """Lists the records; makes no head yet.

        Args:
            recipe: which heads.
            name: what tables and messages call them.

        Raises:
            InputError: a value of the recipe is out of range.
        """
        recipe.validate()
        self.recipe = recipe
        self.name = name
        self.split = np.array([SPLITS.index(recipe.split_of(subject)) for subject in range(recipe.subjects)])
        self.record_subject = torch.arange(recipe.subjects).repeat_interleave(len(recipe.record_names))

    @property
    def source(self) -> HeadSource:
        """The source that the heads come from."""
        return open_source(self.recipe.source)

    def records(self, split: str) -> Int[Tensor, " r"]:
        """Numbers of the records whose subject is in `split` ("train", "validation" or "test")."""
        return torch.nonzero(torch.from_numpy(self.split == SPLITS.index(split))[self.record_subject]).flatten()

    def subjects(self, split: str) -> Int[Tensor, " s"]:
        """Numbers of the subjects of a split, rising."""
        return torch.unique(self.record_subject[self.records(split)])

    def head(self, record: int) -> Head:
        """Makes the exact head of one record from the recipe."""
        subject, expression = divmod(int(record), len(self.recipe.record_names))
        return list(generate(self.recipe, (subject,)))[expression]

    def mesh(self, record: int) -> Mesh:
        """The exact mesh of one record, canonical units."""
        return Mesh(self.head(record).vertices, self.source.template.triangles)
