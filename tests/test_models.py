"""A model file gives back the same model or one line that says why not."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from implicit3dmm.errors import InputError
from implicit3dmm.fields import DeepSDFConfig, ImHeadConfig, build_field
from implicit3dmm.latents import LatentBank, LatentPrior
from implicit3dmm.models import FORMAT_VERSION, HeadModel, evaluate_in_chunks, load_model, save_model

CONFIGS = (
    DeepSDFConfig(6, 16, 3),
    ImHeadConfig(
        latent_dim=6,
        local_dim=2,
        octaves=2,
        local_width=8,
        local_layers=1,
        feature_dim=4,
        fusion_width=8,
        fusion_layers=1,
        landmark_width=4,
    ),
)


def model(config=CONFIGS[0], name: str = "heads") -> HeadModel:
    torch.manual_seed(0)
    field = build_field(config)
    bank = LatentBank(field.latent_specs, torch.arange(9), torch.Generator().manual_seed(0))
    return HeadModel(field, LatentPrior.of(bank, torch.arange(9)), {"name": name, "licence": "MIT", "steps": 3})


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "heads.safetensors", model())
    return tmp_path / "heads.safetensors"


def header_of(path) -> dict:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["implicit3dmm"])


def points(count: int = 30) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 3))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_saved_model_comes_back_bit_for_bit(config, tmp_path):
    before = model(config)
    save_model(tmp_path / "m.safetensors", before)
    after = load_model(tmp_path / "m.safetensors")
    codes = before.prior.sample(1, generator=torch.Generator().manual_seed(1))
    assert after.field.config == before.field.config
    assert after.info == before.info
    assert after.name == "heads"
    assert after.device == torch.device("cpu")
    assert all(torch.equal(t, after.field.state_dict()[k]) for k, t in before.field.state_dict().items())
    assert all(torch.equal(t, after.prior.to_tensors()[k]) for k, t in before.prior.to_tensors().items())
    assert np.array_equal(after.sdf(points(), codes), before.sdf(points(), codes))


def test_a_loaded_model_is_for_use_not_for_training(saved):
    field = load_model(saved).field
    assert not field.training
    assert not any(parameter.requires_grad for parameter in field.parameters())


def test_the_file_says_what_it_is_without_its_weights(saved):
    header = header_of(saved)
    assert header["format"] == "implicit3dmm-model"
    assert header["version"] == FORMAT_VERSION
    assert "1 unit = 200 mm" in header["frame"]
    assert header["field"]["name"] == "deepsdf"
    assert header["info"]["licence"] == "MIT"


def test_chunks_do_not_matter(saved):
    loaded = load_model(saved)
    codes = loaded.prior.mean()
    whole = loaded.sdf(points(), codes)
    assert whole.shape == (30,)
    assert whole.dtype == np.float32
    assert np.allclose(loaded.sdf(points(), codes, chunk=7), whole, atol=1e-6)
    assert loaded.sdf(points(0), codes).shape == (0,)
    direct = evaluate_in_chunks(loaded.condition(codes).sdf, points(), chunk=11, device=loaded.device)
    assert np.allclose(direct, whole, atol=1e-6)


def test_sdf_takes_the_first_of_several_shapes(saved):
    loaded = load_model(saved)
    codes = loaded.prior.sample(3, generator=torch.Generator().manual_seed(1))
    first = {name: table[:1] for name, table in codes.items()}
    assert np.array_equal(loaded.sdf(points(), codes), loaded.sdf(points(), first))


@pytest.mark.parametrize(
    ("codes", "given"),
    [
        ({"identity": torch.zeros(1, 7)}, r"needs codes 'identity' of shape \(b, 6\); given \(1, 7\)"),
        ({"identity": torch.zeros(6)}, r"needs codes 'identity' of shape \(b, 6\); given \(6,\)"),
        ({"expression": torch.zeros(1, 6)}, "needs codes 'identity'; given expression"),
        ({"identity": torch.zeros(1, 6), "expression": torch.zeros(1, 6)}, "has no code 'expression'; it has identity"),
    ],
    ids=["size", "shape", "missing", "foreign"],
)
def test_codes_of_another_model_are_refused_by_name(saved, codes, given):
    with pytest.raises(InputError, match=f"heads {given}"):
        load_model(saved).condition(codes)


def refused(path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_cut_off_file_is_refused(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    refused(saved, "no whole safetensors file")


def test_a_file_that_is_something_else_is_refused(tmp_path):
    path = tmp_path / "scan.safetensors"
    path.write_text("ply\nformat ascii 1.0\n")
    refused(path, "no whole safetensors file")


def test_a_missing_file_is_refused_with_the_released_names(tmp_path):
    refused(tmp_path / "none.safetensors", "no model")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"implicit3dmm": "{}"}, {"implicit3dmm": "[1]"}], ids=str)
def test_weights_of_another_project_are_refused(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors", metadata)
    refused(tmp_path / "other.safetensors", "no model of this project")


def rewritten(path, *, drop: str = "", add: dict | None = None, **changes) -> None:
    """The file with another header or without one tensor."""
    tensors = load_file(path)
    tensors.pop(drop, None)
    save_file(tensors | (add or {}), path, {"implicit3dmm": json.dumps(header_of(path) | changes)})


def test_a_damaged_header_is_refused(saved):
    save_file(load_file(saved), saved, {"implicit3dmm": '{"format": '})
    refused(saved, "no whole safetensors file")


def test_a_header_with_a_part_missing_is_refused(saved):
    header = header_of(saved)
    del header["info"]
    save_file(load_file(saved), saved, {"implicit3dmm": json.dumps(header)})
    refused(saved, "lacks a part of its header")


def test_a_newer_version_is_refused_with_both_numbers(saved):
    rewritten(saved, version=FORMAT_VERSION + 1)
    refused(saved, f"format version {FORMAT_VERSION + 1}; this program reads {FORMAT_VERSION}")


@pytest.mark.parametrize("name", ["field.out.bias", "prior.identity.axes"])
def test_a_file_without_one_of_its_tensors_is_refused(saved, name):
    rewritten(saved, drop=name)
    refused(saved, "lacks weights of its own architecture")


def test_weights_of_other_sizes_than_the_config_are_refused(saved):
    rewritten(saved, add={"field.out.bias": torch.zeros(2)})
    refused(saved, "lacks weights of its own architecture")


def test_an_architecture_that_is_not_installed_is_refused_by_name(saved):
    rewritten(saved, field={"name": "nphm"})
    refused(saved, "no architecture 'nphm'; there are .*deepsdf")


def test_an_unknown_size_in_the_config_is_refused_by_its_key(saved):
    rewritten(saved, field=header_of(saved)["field"] | {"depth": 3})
    refused(saved, r"field\.depth: unknown key")


def test_a_failed_write_leaves_the_old_file(saved):
    before = saved.read_bytes()
    broken = model()
    with pytest.raises(TypeError):
        save_model(saved, HeadModel(broken.field, broken.prior, {"name": object()}))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["heads.safetensors"]
