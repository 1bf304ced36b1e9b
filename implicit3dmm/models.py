"""A trained model: the field, the prior of its codes, and what one has to know of it, in one safetensors file."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from implicit3dmm.errors import InputError
from implicit3dmm.fields import ConditionedField, Field, build_field, field_from_mapping, field_to_mapping
from implicit3dmm.files import atomic_path
from implicit3dmm.latents import Codes, LatentPrior
from implicit3dmm.resources import asset

if TYPE_CHECKING:
    from implicit3dmm.mesh_models.model import MeshModel

FORMAT = "implicit3dmm-model"
FORMAT_VERSION = 1
FRAME = "right-handed, x to the subject's left, y up, z out of the face, 1 unit = 200 mm of the average adult"


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A field with trained weights and the prior of its codes."""

    field: Field
    prior: LatentPrior
    info: Mapping[str, Any]
    """Name, licence, corpus recipe, training config, command and figures, as written in the file."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info["name"]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.field.parameters()).device

    def condition(self, codes: Codes) -> ConditionedField:
        """The field of given codes.

        Raises:
            InputError: a code is missing or has another size.
        """
        missing = [spec.name for spec in self.field.latent_specs if spec.name not in codes]
        if missing:
            raise InputError(
                f"{self.name} needs codes {missing[0]!r}; given {', '.join(sorted(codes)) or 'none'}; codes belong to "
                "the model that made them"
            )
        check_codes(self, codes)
        return self.field.condition(codes)

    @torch.no_grad()
    def sdf(self, points: Float[np.ndarray, "n 3"], codes: Codes, *, chunk: int = 8192) -> Float[np.ndarray, " n"]:
        """Signed distance of the first shape of `codes`, negative inside.

        Args:
            points: canonical frame and units.
            codes: of this model.
            chunk: points that are evaluated at once.

        Raises:
            InputError: the codes are those of another model.
        """
        conditioned = self.condition({name: table[:1].to(self.device) for name, table in codes.items()})
        return evaluate_in_chunks(conditioned.sdf, points, chunk=chunk, device=self.device)


def check_codes(model: HeadModel, codes: Codes) -> None:
    """Compares some of a model's codes with what it needs.

    Raises:
        InputError: the model has no such code, or one of another size.
    """
    sizes = {spec.name: spec.dim for spec in model.field.latent_specs}
    for name, table in codes.items():
        if name not in sizes:
            raise InputError(
                f"{model.name} has no code {name!r}; it has {', '.join(sizes)}; codes belong to the model that made "
                "them"
            )
        if table.ndim != 2 or table.shape[1] != sizes[name]:
            raise InputError(
                f"{model.name} needs codes {name!r} of shape (b, {sizes[name]}); given {tuple(table.shape)}; codes "
                "belong to the model that made them"
            )


def subject_codes(codes: Codes, model: HeadModel) -> Codes:
    """Those of the codes that all records of a subject share: without the expression."""
    return {spec.name: codes[spec.name] for spec in model.field.latent_specs if spec.per == "subject"}


def evaluate_in_chunks(
    function: Callable[[Float[Tensor, "1 n 3"]], Float[Tensor, "1 n *d"]],
    points: Float[np.ndarray, "n 3"],
    *,
    chunk: int,
    device: torch.device,
) -> Float[np.ndarray, "n *d"]:
    """Values of a conditioned field of one shape at points, such as `ConditionedField.sdf`.

    Chunks are small, so that their activations stay in cache. On the CPU they are shared out among as many threads as
    torch has, one core each: threads inside each small operation would mostly wait for each other.
    """

    @torch.no_grad()
    def evaluate(start: int) -> np.ndarray:
        part = torch.as_tensor(points[start : start + chunk], dtype=torch.float32, device=device)
        return function(part[None])[0].cpu().numpy()

    starts = range(0, max(len(points), 1), chunk)
    workers = min(torch.get_num_threads() if device.type == "cpu" else 1, len(starts))
    if workers > 1:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return np.concatenate(list(pool.map(evaluate, starts)))
    return np.concatenate([evaluate(start) for start in starts])


def training_heads(info: Mapping[str, Any]) -> str:
    """The heads that a model was trained on, such as "1000 makehuman + 500 ict", from the `info` of its file."""
    # A linear model, and weights of version 0.1, name one recipe.
    recipes = info.get("recipes", [info["recipe"]] if "recipe" in info else [])
    most = info.get("training", {}).get("subjects")
    return " + ".join(_heads_of(recipe, most) for recipe in recipes)


def _heads_of(recipe: Mapping[str, Any], most: int | None) -> str:
    expressions = len(recipe.get("expressions", ["neutral"])) + recipe.get("random_expressions", 0)
    return (
        f"{most or recipe['train']} {recipe['source']}"
        + (f" with {recipe['detail_mm']:g} mm of relief" if recipe.get("detail_mm") else "")
        + (f" under {expressions} expressions" if expressions > 1 else "")
        + (f" with {recipe['swaps']} composites each" if recipe.get("swaps") else "")
    )


def save_model(path: str | Path, model: HeadModel) -> None:
    """Writes weights, prior, config and `info` into one safetensors file.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: whose `info` is plain values, as JSON holds them.

    Raises:
        InputError: the folder cannot be written to.
    """
    tensors = {f"field.{key}": value.contiguous().cpu() for key, value in model.field.state_dict().items()}
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "frame": FRAME,
        "field": field_to_mapping(model.field.config),
        "info": dict(model.info),
    }
    with atomic_path(path) as temporary:
        save_file(tensors | model.prior.to_tensors(), temporary, {"implicit3dmm": json.dumps(header)})


def load_model(name_or_path: str | Path = "imhead", *, device: torch.device | str = "cpu") -> HeadModel:
    """Loads a released model by name, or a weights file.

    Args:
        name_or_path: a name of `released_models()`, or the path of a .safetensors file.
        device: where to put the weights.

    Raises:
        InputError: there is no such model, or the file is damaged, foreign or of a newer version.
    """
    path = model_file(name_or_path)
    header, tensors = _read(path)
    field = build_field(field_from_mapping(header["field"], where=f"{path}: field"))
    try:
        weights = {key.removeprefix("field."): t for key, t in tensors.items() if key.startswith("field.")}
        field.load_state_dict(weights)
        prior = LatentPrior.from_tensors(tensors, [spec.name for spec in field.latent_specs])
    except (KeyError, RuntimeError):
        raise InputError(f"{path} lacks weights of its own architecture; get the file again") from None
    field.eval().requires_grad_(False)
    return HeadModel(field.to(device), prior, header["info"])


def model_file(name_or_path: str | Path) -> Path:
    """The file of a released model or of a path.

    Raises:
        InputError: there is no such model.
    """
    path = released_models().get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise InputError(
            f"no model {str(name_or_path)!r}; give a .safetensors file or one of {', '.join(released_models())}"
        )
    return path


def released_models() -> dict[str, Path]:
    """Models that travel with the package, by name."""
    return {path.stem: path for path in sorted(asset("models").glob("*.safetensors"), key=lambda path: path.stem)}


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("implicit3dmm")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
        header = json.loads(text) if text else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no whole safetensors file ({error}); get it again") from None
    kind = header.get("format", "") if isinstance(header, dict) else ""
    if kind != FORMAT and kind.startswith(FORMAT.partition("-")[0]):
        raise InputError(
            f"{path} holds a model of registered heads, which reads no scans; give a field such as imhead here, and "
            "this to 'implicit3dmm evaluate compare'"
        )
    if kind != FORMAT:
        raise InputError(f"{path} is no model of this project; give a file that 'implicit3dmm train' wrote")
    if not {"version", "field", "info"} <= header.keys():
        raise InputError(f"{path} lacks a part of its header; get the file again")
    if header["version"] > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {header['version']}; this program reads {FORMAT_VERSION}; update it"
        )
    return header, tensors


def save_codes(path: str | Path, codes: Codes, *, model: str) -> None:
    """Writes codes with the name of the model that they belong to."""
    with atomic_path(path) as temporary:
        save_file({name: table.contiguous().cpu() for name, table in codes.items()}, temporary, {"model": model})


def save_head(path: str | Path, conditioned: ConditionedField, *, model: str) -> None:
    """Writes what makes one head again, which an edit may have taken from several: see `ConditionedField.state`.

    Raises:
        InputError: heads of the model have no such state, or the folder cannot be written to.
    """
    if conditioned.state is None:
        raise InputError(f"heads of {model} have no local embeddings to keep; keep their codes, or use imhead")
    save_codes(path, conditioned.state, model=model)


def load_head(path: str | Path, model: HeadModel) -> ConditionedField:
    """The head of a file of codes, or of one that `save_head` wrote.

    Raises:
        InputError: as `load_codes`.
    """
    state = {name: table[:1].to(model.device) for name, table in load_codes(path, model).items()}
    with torch.no_grad():
        if "embeddings" in state:
            return model.field.condition_on_embeddings(**state)
        return model.condition(state)


def load_codes(path: str | Path, model: "HeadModel | MeshModel") -> Codes:
    """Reads codes of `model`.

    Raises:
        InputError: the file is no whole safetensors file, or its codes belong to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made_by = (file.metadata() or {}).get("model")
            codes = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no whole file of codes ({error}); fit the scan again") from None
    if made_by is None:
        raise InputError(f"{path} holds no codes; a file codes.safetensors of a fit or a sample was expected; give one")
    if made_by != model.name:
        raise InputError(f"{path} holds codes of the model {made_by}, not of {model.name}; give --model {made_by}")
    return codes
