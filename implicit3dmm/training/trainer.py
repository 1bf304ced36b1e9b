"""The training of fields: one process, CPU or CUDA, resumable bit for bit on the CPU."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from implicit3dmm.config import to_mapping
from implicit3dmm.data.corpora import Corpora, by_member
from implicit3dmm.data.corpus import Corpus
from implicit3dmm.errors import InputError
from implicit3dmm.fields import Field, build_field
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.latents import LatentBank, LatentPrior
from implicit3dmm.models import HeadModel, load_model, save_model
from implicit3dmm.training.config import RunConfig, TrainingConfig
from implicit3dmm.training.gradients import GradientWorkers
from implicit3dmm.training.objective import Objective
from implicit3dmm.training.run import Run
from implicit3dmm.training.starts import start_codes, start_from_fits


class Trainer:
    """Trains one field on one corpus in one run folder.

    The folder holds config.yaml, checkpoint.safetensors, metrics.jsonl, tensorboard events and, at the end,
    model.safetensors. Batches depend on the seed and the step alone, so a resumed run draws what an unbroken one
    would.
    """

    def __init__(self, config: RunConfig, corpus: Corpus | Corpora, folder: str | Path, *, device: str = "cpu"):
        """Builds field, codes and optimiser afresh; `resume` replaces them by the checkpoint's.

        Args:
            config: the field and how it is trained.
            corpus: read only; its training split is what counts.
            folder: of the run; made if missing.
            device: where field and codes live.

        Raises:
            InputError: the corpus has fewer than two training subjects or lacks what a loss asks for, or the folder
                cannot be written to or holds a run of another field.
        """
        self.config = config
        self.corpus = corpus
        self.device = torch.device(device)
        settings = config.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            field = build_field(config.field)
        self.records = _training_records(corpus, field, settings.subjects)
        _check_stages(corpus, field, settings)
        self.run = Run(folder, config, of="field")
        generator = torch.Generator().manual_seed(settings.seed)
        start = _load_start(config)
        self._start, self._known = (start.name, start.prior) if start else (None, None)
        bank = LatentBank(
            field.latent_specs,
            corpus.record_subject,
            generator,
            known={spec.name: corpus.units(spec.names) for spec in field.latent_specs if spec.names},
            neutral=corpus.neutral,
            donors=corpus.donors,
        )
        if start:
            field.start_from(start.field.state_dict())
            for name in start.prior.parts.keys() & bank.tables.keys():
                bank.start_from(name, start.prior.parts[name].mean.expand_as(bank.tables[name]))
        if settings.code_start == "pca" and not start:
            subjects = corpus.record_subject[self.records].unique()
            start_codes(bank, corpus, subjects, whitening=settings.pca_whitening)
        if settings.code_start == "fit" and not self.run.begun:
            start_from_fits(bank, corpus, self.records, start, seed=settings.seed)
        if settings.identity == "held":
            _hold_identity(field, bank)
        self.objective = Objective(field, bank, settings).to(self.device)
        groups = [(field, settings.learning_rate), (bank, settings.code_learning_rate)]
        self.optimiser = torch.optim.Adam(
            [{"params": [p for p in part.parameters() if p.requires_grad], "lr": rate} for part, rate in groups],
            fused=True,
        )
        self._gradients = GradientWorkers(self.objective, settings.workers if self.device.type == "cpu" else 1)
        self._rates = [group["lr"] for group in self.optimiser.param_groups]

    def resume(self) -> None:
        """Goes on from the folder's checkpoint; a folder without one starts afresh.

        Raises:
            InputError: the checkpoint is damaged, or of another field or corpus.
        """
        self.run.resume(self.objective, self.optimiser)

    def train(self, *, progress: Callable[[Iterable], Iterable] = iter) -> HeadModel:
        """Runs to the configured number of steps, writes model.safetensors and returns the model.

        Args:
            progress: wraps the remaining steps, such as `tqdm`.

        Raises:
            InputError: a loss or a gradient stopped being finite; the message names step and records, and the last
                checkpoint stays.
        """
        self.run.go(self.objective, self.optimiser, self._step, progress=progress)
        model = self.model()
        save_model(self.run.folder / "model.safetensors", model)
        return model

    def model(self) -> HeadModel:
        """The model as it stands."""
        members = self.corpus.members.values()
        sources = "; ".join(f"{member.recipe.source}: {member.source.licence}" for member in members)
        info = {
            "licence": f"weights: MIT; trained on {sources}",
            "start": self._start,
            "recipes": [to_mapping(member.recipe) for member in members],
            **self.run.info(),
        }
        if "surface" in self.run.means:
            missed = self.run.means["surface"] * UNIT_MM
            info["gate"] = f"mean distance to the surface of its training heads: {missed:.3g} mm"
        prior = LatentPrior.of(self.objective.bank, self.records)
        return HeadModel(self.objective.field, prior.pooled(self._known) if self._known else prior, info)

    def _step(self, step: int) -> dict[str, float]:
        settings = self.config.training
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        records = self.records[torch.randint(len(self.records), (settings.shapes,), generator=generator)]
        samples = self.corpus.samples(records, (settings.surface_points, settings.distance_points), generator)
        weights, codes = self.optimiser.param_groups
        weights["lr"], codes["lr"] = (rate * _schedule(step, settings) for rate in self._rates)
        if step < settings.code_steps:
            weights["lr"] = 0.0
        parts = self.corpus.keypoint_parts.expand(len(records), -1)
        known = (self.corpus.anchors[records], self.corpus.keypoints[records], parts)
        batch = (records, *samples, *known)
        values = self._gradients(*(tensor.to(self.device) for tensor in batch))
        norm = nn.utils.clip_grad_norm_(self.objective.field.parameters(), settings.clip)
        moves = [table.grad for table in self.objective.bank.parameters() if table.grad is not None]
        if not (math.isfinite(values["total"]) and all(move.isfinite().all() for move in (norm, *moves))):
            raise InputError(
                f"the losses {values} or their gradients are not finite at step {step} on records "
                f"{records.tolist()}; lower the learning rate and resume from the last checkpoint"
            )
        self.optimiser.step()
        return values


def _load_start(config: RunConfig) -> HeadModel | None:
    if config.start is not None:
        return load_model(config.start)
    for key, value in (("code_start", "fit"), ("identity", "held")):
        if getattr(config.training, key) == value:
            raise InputError(f"training.{key} is {value!r} without a model to start from; give one as start")
    return None


def _hold_identity(field: Field, bank: LatentBank) -> None:
    """Takes the neutral field inside a warp, and its codes, out of the training."""
    inner = getattr(field, "identity", None)
    if not isinstance(inner, Field):
        raise InputError(
            f"training.identity is 'held', but {type(field).__name__} has no neutral field inside; give 'trained', or "
            "a field with a warp"
        )
    inner.requires_grad_(False)
    for spec in inner.latent_specs:
        bank.tables[spec.name].requires_grad_(False)


def _check_stages(corpus: Corpus | Corpora, field: Field, settings: TrainingConfig) -> None:
    """Refuses losses of stages on a corpus that knows nothing of them."""
    asked = [name for name in ("landmark", "consistency") if getattr(settings.losses, name)]
    if field.staged and asked and not corpus.keypoints.shape[3]:
        raise InputError(
            f"{corpus.name} has no landmarks on the way to the template, which training.losses.{asked[0]} asks for; "
            f"give a corpus with swaps, such as composites, or set {' and '.join(asked)} to 0"
        )


def _training_records(corpus: Corpus | Corpora, field: Field, most: int | None) -> Int[Tensor, " r"]:
    """Records of the training subjects, of the first `most` of each member where that is given.

    Composites are left out where the field has a code of a whole subject, which no composite has.
    """
    records = corpus.records("train")
    if not all(spec.part for spec in field.latent_specs if spec.per == "subject"):
        records = records[corpus.whole[records]]
    subjects = corpus.record_subject[records]
    if most is not None:
        kept = []
        for member, start, own in by_member(corpus, subjects.unique()):
            if len(own) < most:
                raise InputError(
                    f"{member.name} has {len(own)} training subjects; training.subjects asks for {most}; ask for fewer"
                )
            kept.append(own[:most] + start)
        givers = torch.stack([rows[records] for rows in corpus.donors.values()])
        records = records[torch.isin(givers, torch.cat(kept)).all(0)]
    count = len(corpus.record_subject[records].unique())
    if count < 2:  # whose codes have no spread
        raise InputError(f"{corpus.name} has {count} training subjects; expected at least 2; build a larger corpus")
    return records


def _schedule(step: int, settings: TrainingConfig) -> float:
    """Factor of the learning rates: a rise, a plateau, a fall to zero."""
    rise = min((step + 1) / max(settings.warmup, 1), 1.0)
    falling = max(settings.decay * settings.steps, 1)
    return rise * min((settings.steps - step) / falling, 1.0)
