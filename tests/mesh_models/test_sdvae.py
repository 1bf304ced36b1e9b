from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.base import Batch, build_network
from implicit3dmm.mesh_models.model import MeshModel, load_network, save_network
from implicit3dmm.mesh_models.sdvae import (
    SDVAE,
    SDVAEConfig,
    divergence,
    inconsistency,
    swap_inconsistency,
    swapped,
    uniform_laplacian,
)

SMALL = SDVAEConfig(latent_dim=6, channels=(8, 12), length=7)


@pytest.fixture
def network(ball, balls) -> SDVAE:
    torch.manual_seed(0)
    made = build_network(SMALL, ball)
    made.see(balls)
    return made


def batch(balls, rows) -> Batch:
    vertices = torch.from_numpy(balls.vertices[rows])
    return Batch(vertices, vertices, {})


class TestSwapping:
    def test_a_batch_holds_every_combination_of_region_and_rest(self, ball, balls):
        vertices = torch.from_numpy(balls.vertices[:4])
        region = torch.from_numpy(ball.labels == 1)
        grid = swapped(vertices, region)
        assert grid.shape == (4, 4, 642, 3)
        for i in range(4):
            assert torch.equal(grid[i, i], vertices[i])
            for j in range(4):
                assert torch.equal(grid[i, j, region], vertices[i, region])
                assert torch.equal(grid[i, j, ~region], vertices[j, ~region])

    def test_codes_that_follow_the_swap_are_consistent(self):
        part = slice(2, 4)
        far = 3.0 * torch.arange(4.0)
        grid = torch.empty(4, 4, 6)
        grid[..., part] = far[:, None, None]  # by the head that gave the region
        grid[..., :2] = grid[..., 4:] = far[None, :, None]  # by the other one
        assert swap_inconsistency(grid.flatten(0, 1), part, 0.5) == 0
        assert swap_inconsistency(grid.transpose(0, 1).flatten(0, 1), part, 0.5) > 1
        assert swap_inconsistency(grid.flatten(0, 1), slice(0, 2), 0.5) > 1

    def test_the_step_swaps_the_region_that_it_drew(self, network, balls, monkeypatch):
        seen = {}
        monkeypatch.setattr(
            "implicit3dmm.mesh_models.sdvae.swapped", lambda v, r: seen.setdefault(int(r.sum()), swapped(v, r))
        )
        for seed in range(12):
            network.losses(batch(balls, [0, 1]), generator=torch.Generator().manual_seed(seed))
        assert seen.keys() == set(np.bincount(network.topology.labels).tolist())


class TestLosses:
    def test_the_divergence_is_that_of_normal_distributions(self):
        assert divergence(torch.zeros(3, 5), torch.zeros(3, 5)) == 0
        mean, log_variance = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
        known = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
        torch.testing.assert_close(divergence(mean, log_variance), known)

    def test_inconsistency_is_the_mean_over_triplets(self):
        codes = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
        terms = []
        for i in range(4):
            for j in range(4):
                for s in (1, 2, 3):
                    alike = (codes[i, j] - codes[i, (j - s) % 4]).square().sum()
                    other = (codes[i, j] - codes[(i - s) % 4, j]).square().sum()
                    terms.append(max(0.0, (alike - other + 0.5).item()))
        assert len(terms) == 4 * 4 * 3
        assert inconsistency(codes, 0.5).item() == pytest.approx(np.mean(terms))

    def test_inconsistency_is_zero_beyond_the_margin_and_the_margin_where_all_are_equal(self):
        rows = torch.arange(3.0)[:, None, None].expand(3, 3, 1)
        assert inconsistency(rows, 0.9) == 0
        assert inconsistency(rows, 1.1) == pytest.approx(0.1 * 2 / 3)  # heads two apart keep the margin
        assert inconsistency(torch.ones(3, 3, 1), 0.5) == 0.5
        assert inconsistency(torch.ones(1, 1, 1), 0.5) == 0

    def test_the_laplacian_leads_to_the_middle_of_the_neighbours(self, ball, balls):
        vertices = balls.vertices[0].astype(np.float64)
        sides = [ball.edges, ball.edges[:, ::-1]]
        near = {v: np.concatenate([side[side[:, 0] == v, 1] for side in sides]) for v in range(0, 642, 40)}
        moved = uniform_laplacian(ball) @ vertices
        for vertex, others in near.items():
            np.testing.assert_allclose(moved[vertex], vertices[others].mean(0) - vertices[vertex], atol=1e-12)

    def test_the_total_is_the_sum_of_the_weighted_parts(self, ball, balls, network):
        generator = torch.Generator().manual_seed(0)
        losses = network.losses(batch(balls, [0, 1, 2]), generator=generator)
        parts = [losses[name] for name in ("error", "laplacian", "divergence", "consistency")]
        assert min(parts) > 0
        torch.testing.assert_close(losses["total"], sum(parts))
        plain = SDVAE(SDVAEConfig(6, (8, 12), 4, 7, laplacian=0.0, divergence=0.0, consistency=0.0), ball)
        plain.load_state_dict(network.state_dict())
        again = plain.losses(batch(balls, [0, 1, 2]), generator=generator.manual_seed(0))
        torch.testing.assert_close(again["total"], losses["error"])

    def test_a_few_steps_lower_error_and_inconsistency(self, network, balls):
        optimiser = network.optimiser(learning_rate=3e-3, weight_decay=0.0)
        generator = torch.Generator().manual_seed(0)

        def draw(count):
            return batch(balls, torch.randperm(24, generator=generator)[:count].numpy())

        history = [network.train_step(draw, optimiser, batch=4, generator=generator) for _ in range(80)]
        for name in ("error", "consistency"):
            first, last = (np.mean([losses[name] for losses in some]) for some in (history[:10], history[-10:]))
            assert last < 0.6 * first, name


def test_every_coordinate_that_varies_counts_as_much(network, balls):
    deviations = network.normalised(torch.from_numpy(balls.vertices))
    torch.testing.assert_close(deviations.square().mean(0), torch.ones(642, 3), rtol=1e-3, atol=0)
    back = network.restored(deviations)
    torch.testing.assert_close(back, torch.from_numpy(balls.vertices), rtol=0, atol=1e-5)


def test_a_vertex_that_never_moves_divides_by_no_zero(ball, balls):
    vertices = balls.vertices.copy()
    vertices[:, 5] = vertices[0, 5]
    made = build_network(SMALL, ball)
    made.see(replace(balls, vertices=vertices))
    assert made.normalised(torch.from_numpy(vertices))[:, 5].abs().max() < 1e-3


def test_the_parts_of_the_regions_make_up_the_code(network):
    rows = np.arange(6)
    np.testing.assert_array_equal(
        np.concatenate([rows[network.part(name)] for name in ("low", "middle", "high")]), rows
    )
    with pytest.raises(InputError, match="no region 'nose'"):
        network.part("nose")


def test_a_code_that_the_regions_cannot_share_is_refused(ball):
    with pytest.raises(InputError, match=r"latent_dim is 7; the head has 3 regions .* give a multiple of 3"):
        build_network(SDVAEConfig(latent_dim=7, channels=(8,)), ball)


def test_the_code_is_the_mean_and_the_weights_file_gives_the_same_bits_back(network, balls, tmp_path):
    model = MeshModel(network.eval().requires_grad_(False), {"name": "balls"})
    save_network(tmp_path / "net.safetensors", model)
    again = load_network(tmp_path / "net.safetensors")
    codes = model.encode(balls.vertices)
    assert (again.encode(balls.vertices) == codes).all()
    assert (again.decode(codes) == model.decode(codes)).all()
    mean = network.down(network.features(torch.from_numpy(balls.vertices)))
    np.testing.assert_array_equal(codes, mean.numpy())


@pytest.mark.parametrize("name", ["laplacian", "divergence", "consistency", "margin"])
def test_a_negative_weight_is_named(name):
    with pytest.raises(InputError, match=f"{name} is -1; expected at least 0"):
        SDVAEConfig(**{name: -1}).validate()


def test_a_new_region_changes_its_part_of_the_code_alone(network, balls, monkeypatch):
    monkeypatch.setattr(network, "decode", lambda codes: codes)
    network.code_mean.fill_(7.0)
    heads = torch.from_numpy(balls.vertices[:2]).expand(2, -1, -1)
    with torch.no_grad():
        codes = network.encode(heads)
        drawn, again = (network.with_new_region(heads, "middle", rng=np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(drawn, again)
    part = network.part("middle")
    kept = [column for column in range(6) if column not in range(6)[part]]
    assert torch.equal(drawn[:, kept], codes[:, kept])
    assert (drawn[:, part] > 2).all()
    assert not torch.equal(drawn[0, part], drawn[1, part])


def test_a_donors_region_is_its_part_of_the_code(ball, balls):
    torch.manual_seed(0)
    network = SDVAE(SDVAEConfig(latent_dim=6, channels=(4, 4)), ball)
    network.see(balls)
    source, donor = (torch.from_numpy(balls.vertices[rows]) for rows in ([0], [1]))
    with torch.no_grad():
        codes = network.encode(source)
        codes[:, 2:4] = network.encode(donor)[:, 2:4]
        assert torch.equal(network.with_region(source, donor, "middle"), network.decode(codes))
        assert not torch.equal(network.decode(codes), network.decode(network.encode(source)))
