"""Where codes start: principal components of the heads, or fits of a trained model, instead of noise."""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit3dmm.data.axes import gram_axes, neutral_vertices
from implicit3dmm.data.composites import graft_sites
from implicit3dmm.data.corpora import Corpora, by_member
from implicit3dmm.data.corpus import Corpus
from implicit3dmm.data.sources import HeadSource
from implicit3dmm.errors import InputError
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.solver import solve_together
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.template import ANCHOR_PAIRS, ANCHORS, REMAINDER, HeadTemplate
from implicit3dmm.latents import EXPRESSION, LatentBank
from implicit3dmm.models import HeadModel

log = logging.getLogger(__name__)

FIT_POINTS, FIT_STEPS = 4000, 6
"""Points and steps of a fit that a code starts from; training goes on from there."""

PLACE = 400
"""Vertices around an anchor from whose movements its code starts."""


def start_codes(bank: LatentBank, corpus: Corpus | Corpora, subjects: Int[Tensor, " s"], *, whitening: float) -> None:
    """Overwrites the subjects' codes by principal components of their neutral heads.

    Component i has the standard deviation (s_i / s_1) ** (1 - whitening) over the subjects, where s_i is its spread in
    space: 0 keeps the proportions of space, 1 makes all alike. Components beyond the number of subjects are zero. The
    code of a part starts from what is the subject's own there. A code per anchor starts from the vertices around its
    anchor, those of a mirrored pair from common components.

    Args:
        bank: codes of the corpus.
        corpus: whose heads.
        subjects: the ones that train.
        whitening: 0 to 1.
    """
    source = next(iter(corpus.members.values())).source
    vertices = _vertices(corpus, source.template, subjects)
    centred = vertices - vertices.mean(0)
    for spec in bank.specs:
        if spec.per == "subject":
            if spec.per_anchor:
                codes = _anchored(centred, source.template, spec.dim // len(ANCHORS), whitening)
            else:
                shown = _part(vertices, source, spec.part) if spec.part else centred
                codes = components(shown.reshape(len(shown), -1), spec.dim, whitening=whitening)
            table = bank.tables[spec.name].detach().clone()
            table[subjects] = torch.from_numpy(codes)
            bank.start_from(spec.name, table)


def start_from_fits(
    bank: LatentBank, corpus: Corpus | Corpora, records: Int[Tensor, " r"], model: HeadModel, *, seed: int
) -> None:
    """Overwrites the subjects' codes by fits of a trained model to their neutral heads, which lie in its frame.

    Args:
        bank: codes of the corpus.
        corpus: whose heads.
        records: the ones that train.
        model: whose codes, of the same names and sizes as the bank's.
        seed: of the choice of points.

    Raises:
        InputError: a subject has no neutral record.
    """
    generator = torch.Generator().manual_seed(seed)
    shared = [spec.name for spec in bank.specs if spec.per == "subject"]
    tables = {name: bank.table(name).detach().clone() for name in shared}
    at_rest = records[(corpus.neutral & corpus.whole)[records]]
    neutral = {int(corpus.record_subject[record]): record for record in at_rest}
    settings = FitConfig(points=FIT_POINTS, steps=FIT_STEPS)
    subjects = corpus.record_subject[records].unique().tolist()
    log.info(
        "fitting %s to the neutral heads of %d subjects, from whose codes the training starts",
        model.name,
        len(subjects),
    )
    for subject in subjects:
        if subject not in neutral:
            raise InputError(
                f"subject {subject} of {corpus.name} has no neutral record to fit; add neutral to the expressions"
            )
        samples = corpus.samples(neutral[subject][None], (FIT_POINTS, 1), generator)
        points = samples.surface[0].double().numpy()
        (solution,) = solve_together(model, [points], [Similarity.identity()], settings, held=("pose", EXPRESSION))
        for name in shared:
            tables[name][subject] = solution.codes[name][0]
    for name, table in tables.items():
        bank.start_from(name, table)


def components(centred: Float[np.ndarray, "s c"], dim: int, *, whitening: float) -> Float[np.ndarray, "s d"]:
    """Principal components of the rows, the first with standard deviation 1; see `start_codes`."""
    left, spread = gram_axes(centred)
    rank = min(dim, len(centred) - 1)
    codes = np.zeros((len(centred), dim), np.float32)
    codes[:, :rank] = left[:, :rank] * np.sqrt(len(centred)) * (spread[:rank] / spread[0]) ** (1 - whitening)
    return codes


def _part(vertices: Float[np.ndarray, "s v 3"], source: HeadSource, part: str) -> Float[np.ndarray, "s p 3"]:
    """What is each subject's own of a part, about the mean: grafted into the template, or left of the template's."""
    sites = graft_sites(source)
    template = np.broadcast_to(source.template.vertices, vertices.shape)
    if part == REMAINDER:
        for site in sites.values():
            vertices = site.graft(vertices, template)
    else:
        vertices = sites[part].graft(template, vertices)[:, sites[part].inside]
    return vertices - vertices.mean(0)


def _anchored(
    centred: Float[np.ndarray, "s v 3"], template: HeadTemplate, dim: int, whitening: float
) -> Float[np.ndarray, "s f"]:
    """A code for each anchor, one after the other."""
    near = NearestNeighbours(template.vertices).query(template.vertices[template.anchors], k=PLACE)[1]
    count = len(centred)
    codes = np.zeros((count, len(ANCHORS), dim), np.float32)
    for right in range(0, 2 * len(ANCHOR_PAIRS), 2):
        left = centred[:, near[right + 1]]
        mirrored = centred[:, template.mirror[near[right + 1]]] * np.float32([-1, 1, 1])
        both = components(np.concatenate([mirrored, left]).reshape(2 * count, -1), dim, whitening=whitening)
        codes[:, right], codes[:, right + 1] = both[:count], both[count:]
    for anchor in range(2 * len(ANCHOR_PAIRS), len(ANCHORS)):
        codes[:, anchor] = components(centred[:, near[anchor]].reshape(count, -1), dim, whitening=whitening)
    return codes.reshape(count, -1)


def _vertices(
    corpus: Corpus | Corpora, template: HeadTemplate, subjects: Int[Tensor, " s"]
) -> Float[np.ndarray, "s v 3"]:
    """Neutral heads at the template's vertices; those of another topology at their nearest vertices on average."""
    stacks = []
    for member, _, own in by_member(corpus, subjects):
        rows = neutral_vertices(member, own).reshape(len(own), -1, 3)
        if member.source.template is not template:
            rows = rows[:, NearestNeighbours(member.source.template.vertices).query(template.vertices)[1]]
        stacks.append(rows)
    return np.concatenate(stacks)
