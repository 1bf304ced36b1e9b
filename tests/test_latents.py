"""Codes: which row a record reads, and the prior that a bank leaves behind."""

import pytest
import torch

from implicit3dmm.latents import Gaussian, LatentBank, LatentPrior, LatentSpec

IDENTITY = LatentSpec("identity", 4, 0.5, "subject")
EXPRESSION = LatentSpec("expression", 3, 0.01, "record")
SUBJECTS = torch.tensor([0, 0, 1, 1, 2, 2])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bank(seed: int = 0) -> LatentBank:
    return LatentBank([IDENTITY, EXPRESSION], SUBJECTS, generator(seed))


def table(rows: int = 500, dim: int = 5) -> torch.Tensor:
    mixing = torch.randn(dim, dim, generator=generator(1))
    return torch.randn(rows, dim, generator=generator(2)) @ mixing + torch.arange(dim)


def prior() -> LatentPrior:
    return LatentPrior({"identity": Gaussian.of(table()), "expression": Gaussian.of(table(40, 3))})


def test_records_of_a_subject_share_its_identity_and_have_their_own_expressions():
    codes = bank().codes(torch.tensor([0, 1, 4]))
    assert torch.equal(codes["identity"][0], codes["identity"][1])
    assert not torch.equal(codes["identity"][0], codes["identity"][2])
    assert len(codes["expression"].unique(dim=0)) == 3
    assert bank().tables["identity"].shape == (3, 4)
    assert bank().tables["expression"].shape == (6, 3)


def test_equal_seeds_draw_equal_codes_of_the_stated_spread():
    assert all(torch.equal(a, b) for a, b in zip(bank(1).parameters(), bank(1).parameters(), strict=True))
    assert not torch.equal(bank(1).tables["identity"], bank(2).tables["identity"])
    many = LatentBank([LatentSpec("identity", 50, 0.3, "record")], torch.zeros(200, dtype=torch.long), generator())
    assert many.tables["identity"].std().item() == pytest.approx(0.3, rel=0.05)


def test_a_gradient_reaches_the_rows_that_were_read_and_no_others():
    codes = bank()
    codes.codes(torch.tensor([2, 3]))["identity"].sum().backward()
    assert codes.tables["identity"].grad.tolist() == [[0] * 4, [2] * 4, [0] * 4]


def test_rows_travel_with_the_bank():
    target = bank(3)
    target.load_state_dict(bank(4).state_dict())
    assert torch.equal(target.codes(torch.arange(6))["identity"], bank(4).codes(torch.arange(6))["identity"])


def test_start_from_overwrites_one_table_in_place():
    codes = bank()
    parameter, other = codes.tables["identity"], codes.tables["expression"].clone()
    codes.start_from("identity", torch.arange(12.0).reshape(3, 4))
    assert codes.tables["identity"] is parameter
    assert parameter.tolist() == torch.arange(12.0).reshape(3, 4).tolist()
    assert torch.equal(codes.tables["expression"], other)


def test_a_gaussian_has_the_mean_and_covariance_of_its_rows():
    rows = table()
    gaussian = Gaussian.of(rows, shrinkage=0.0)
    covariance = gaussian.axes @ gaussian.std.square().diag() @ gaussian.axes.T
    assert torch.allclose(gaussian.mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(covariance, torch.cov(rows.T), rtol=1e-4, atol=1e-4)
    assert torch.allclose(gaussian.axes.T @ gaussian.axes, torch.eye(5), atol=1e-5)
    assert (gaussian.std.diff() <= 0).all()


def test_shrinkage_keeps_the_total_variance_and_makes_few_rows_invertible():
    rows = table(3, 5)
    gaussian = Gaussian.of(rows, shrinkage=0.1)
    assert gaussian.std.square().sum().item() == pytest.approx(torch.cov(rows.T).trace().item(), rel=1e-4)
    assert gaussian.std.min() > 0


def test_whitened_rows_have_unit_covariance_and_come_back():
    rows = table()
    gaussian = Gaussian.of(rows, shrinkage=0.0)
    whitened = gaussian.whiten(rows)
    assert torch.allclose(torch.cov(whitened.T), torch.eye(5), atol=1e-3)
    assert torch.allclose(gaussian.unwhiten(whitened), rows, atol=1e-4)


def test_a_prior_counts_only_the_rows_that_were_trained():
    codes = bank()
    codes.start_from("identity", torch.tensor([[1.0, 0, 0, 0], [3.0, 0, 0, 0], [1e6, 1e6, 1e6, 1e6]]))
    left = LatentPrior.of(codes, torch.tensor([0, 1, 2, 3]))  # the third subject was never shown
    assert left.parts["identity"].mean.tolist() == pytest.approx([2, 0, 0, 0])
    assert not left.parts["expression"].mean.any()  # of records: about zero, which is neutral
    rows = codes.tables["expression"].detach()[:4].double()
    expected = (rows.T @ rows).trace() / 3
    assert left.parts["expression"].std.double().square().sum() == pytest.approx(float(expected), rel=1e-4)


def test_known_parameters_are_not_learnt_and_neutral_records_have_the_code_zero():
    units = torch.rand(4, 3, generator=generator()) + 0.1
    spec = LatentSpec("expression", 3, 0.1, "record", names=("a", "b", "c"))
    neutral = torch.tensor([True, False, False, True])
    free = LatentSpec("style", 2, 1.0, "record")
    codes = LatentBank(
        [spec, free], torch.tensor([0, 0, 1, 1]), generator(), known={"expression": units}, neutral=neutral
    )
    assert set(codes.tables) == {"style"}
    assert set(codes.state_dict()) == {"_rows_expression", "_rows_style", "tables.style"}
    read = codes.codes(torch.arange(4))
    assert torch.equal(read["expression"][1:3], units[1:3])
    assert not read["expression"][neutral].any()
    assert not read["style"][neutral].any()
    assert read["style"][1:3].all()


def test_log_density_is_that_of_a_multivariate_normal():
    codes = {"identity": table(7), "expression": table(7, 3)}
    expected = torch.zeros(7)
    for name, part in prior().parts.items():
        covariance = part.axes @ part.std.square().diag() @ part.axes.T
        expected += torch.distributions.MultivariateNormal(part.mean, covariance).log_prob(codes[name])
    assert torch.allclose(prior().log_density(codes), expected, rtol=1e-3)


def test_samples_have_the_priors_moments_and_scale_with_the_temperature():
    drawn = prior().sample(20000, generator=generator())["identity"]
    part = prior().parts["identity"]
    covariance = part.axes @ part.std.square().diag() @ part.axes.T
    spread = part.std.max()
    assert torch.allclose(drawn.mean(0), part.mean, atol=0.05 * float(spread))
    assert torch.allclose(torch.cov(drawn.T), covariance, atol=0.05 * float(spread**2))
    half = prior().sample(20000, temperature=0.5, generator=generator())["identity"]
    assert torch.allclose(half - part.mean, (drawn - part.mean) / 2, atol=1e-4)


def test_temperature_zero_and_mean_are_the_average_head():
    cold = prior().sample(3, temperature=0.0, generator=generator())
    for name, mean in prior().mean(3).items():
        assert torch.equal(cold[name], mean)
        assert torch.equal(mean[0], prior().parts[name].mean)


def test_equal_seeds_give_equal_samples():
    first, again, other = (prior().sample(2, generator=generator(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["identity"], other["identity"])


def test_a_prior_survives_its_tensors():
    names = ["identity", "expression"]
    tensors = prior().to_tensors()
    assert set(tensors) == {f"prior.{name}.{key}" for name in names for key in ("mean", "axes", "std")}
    back = LatentPrior.from_tensors(tensors, names)
    for name in names:
        for key in ("mean", "axes", "std"):
            assert torch.equal(getattr(back.parts[name], key), getattr(prior().parts[name], key))
    del tensors["prior.expression.axes"]
    with pytest.raises(KeyError, match="expression"):
        LatentPrior.from_tensors(tensors, names)


def test_a_prior_can_move_between_devices():
    moved = prior().to("cpu")
    assert torch.equal(moved.parts["identity"].mean, prior().parts["identity"].mean)
