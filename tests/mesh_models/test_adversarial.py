from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from implicit3dmm.config import from_mapping, to_mapping
from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.editing.code_edits import transfer_factor
from implicit3dmm.errors import InputError
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.adversarial import Adversarial, AdversarialConfig
from implicit3dmm.mesh_models.adversarial_losses import (
    classification_loss,
    critic_loss,
    feature_loss,
    gradient_penalty,
    label_balance,
)
from implicit3dmm.mesh_models.adversarial_networks import Critic
from implicit3dmm.mesh_models.adversarial_teacher import TeachingConfig, Turn, turns
from implicit3dmm.mesh_models.base import Batch, build_network
from implicit3dmm.mesh_models.completion import Completion
from implicit3dmm.mesh_models.landmark_fit import fit_landmarks
from implicit3dmm.mesh_models.model import MeshModel, load_network, save_network
from implicit3dmm.mesh_models.topology import Topology
from implicit3dmm.training.checkpoints import Spent, read_checkpoint, write_checkpoint

PEOPLE, LOOKS = 12, 4
TEACHING = TeachingConfig(image_size=16, channels=(8, 16, 32), critic_steps=2)
CONFIG = AdversarialConfig(
    factors={"identity": 5, "expression": 3}, noise_dim=2, width=32, regions=("face",), teaching=TEACHING
)


@pytest.fixture(scope="module")
def topology() -> Topology:
    """A ball whose front is its face and whose underside is its cap."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    front = ball.vertices[:, 2] > 0.2
    regions = {"face": np.flatnonzero(front).tolist(), "rest": np.flatnonzero(~front).tolist()}
    cap = ball.triangles_center[:, 1] < -0.9
    return Topology.of_regions(np.asarray(ball.faces), cap, len(ball.vertices), regions, {})


@pytest.fixture(scope="module")
def heads() -> RegisteredHeads:
    """Twelve ellipsoids under four expressions: a bump in one of three places or none; every fourth is unlabelled."""
    ball = np.asarray(trimesh.creation.icosphere(subdivisions=3).vertices)
    rng = np.random.default_rng(0)
    axes = 1 + 0.15 * rng.normal(size=(PEOPLE, 1, 3))
    places = np.array([[0, 0, -1], [-0.5, -0.3, 0.8], [0.5, -0.3, 0.8], [0, 0.5, 0.85]])
    bumps = np.exp(-20 * np.square(ball - places[:, None]).sum(-1))
    bumps[0] = 0
    vertices = 0.4 * (axes[:, None] * ball + 0.3 * bumps[None, :, :, None] * ball)
    vertices = vertices.reshape(-1, len(ball), 3).astype(np.float32)
    row = np.arange(PEOPLE * LOOKS)
    expression = np.where(row % 4 == 3, UNKNOWN, row % LOOKS)
    labels = {"identity": row // LOOKS, "expression": expression}
    return RegisteredHeads(vertices, row // LOOKS, row // LOOKS * LOOKS, labels)


def made(topology: Topology, heads: RegisteredHeads, **changes) -> Adversarial:
    torch.manual_seed(3)
    network = build_network(replace(CONFIG, **changes), topology)
    network.see(heads)
    network.prepare(heads)
    return network


@pytest.fixture(scope="module")
def network(topology, heads) -> Adversarial:
    """Before its first step; read it, never train it."""
    return made(topology, heads)


@pytest.fixture(scope="module")
def model(network) -> MeshModel:
    return MeshModel(network, {"name": "toy"})


def drawing(heads: RegisteredHeads, generator: torch.Generator):
    def draw(count: int) -> Batch:
        rows = torch.randint(len(heads), (count,), generator=generator)
        vertices = torch.from_numpy(heads.vertices)
        labels = {name: torch.from_numpy(values)[rows] for name, values in heads.labels.items()}
        return Batch(vertices[rows], vertices[torch.from_numpy(heads.rest)[rows]], labels)

    return draw


def train(network: Adversarial, heads: RegisteredHeads, steps: range, *, optimiser=None, rate: float = 1e-3) -> list:
    optimiser = optimiser or network.optimiser(learning_rate=rate, weight_decay=0.0)
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        draw = drawing(heads, generator)
        losses.append(network.train_step(draw, optimiser, batch=8, generator=generator))
    return losses


def bits(network: Adversarial) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def drawn(network: Adversarial, count: int, seed: int = 0) -> np.ndarray:
    """Codes as the model has them."""
    return network.sample(count, temperature=1.0, generator=torch.Generator().manual_seed(seed)).numpy()


class TestLosses:
    def test_the_critic_is_to_score_real_above_fake(self):
        assert critic_loss(torch.tensor([3.0, 5.0]), torch.tensor([1.0, 0.0])) == -3.5

    def test_the_penalty_is_known_where_the_score_is_linear(self):
        direction = torch.randn(3, 4, 4, dtype=torch.float64)
        slope = float(direction.norm()) * 48**0.5  # per root mean square of the image's 48 numbers
        real, fake = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)

        def penalty(steepest: float) -> torch.Tensor:
            score = lambda x: (x * direction).sum((1, 2, 3))  # noqa: E731
            return gradient_penalty(score, real, fake, torch.rand(5, dtype=torch.float64), steepest=steepest)

        assert penalty(slope) == pytest.approx(0, abs=1e-12)
        assert penalty(slope / 3) == pytest.approx(4)
        assert penalty(2 * slope) == pytest.approx(0.25)

    def test_the_penalty_looks_between_the_two_images(self):
        seen = []

        def score(images):
            seen.append(images)
            return images.sum((1, 2, 3))

        share = torch.tensor([0.0, 0.25, 1.0])
        gradient_penalty(score, torch.zeros(3, 3, 2, 2), torch.ones(3, 3, 2, 2), share, steepest=1.0)
        np.testing.assert_allclose(seen[0].detach().mean((1, 2, 3)), share)

    def test_the_penalty_can_be_differentiated(self):
        real, fake = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
        share = torch.tensor([0.3, 0.6], dtype=torch.float64)

        def loss(weight):
            return gradient_penalty(lambda x: torch.tanh((x * weight).sum((1, 2, 3))), real, fake, share, steepest=2.0)

        assert torch.autograd.gradcheck(loss, torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True))

    def test_heads_without_a_label_do_not_count(self):
        logits = torch.randn(4, 3)
        labels = torch.tensor([2, UNKNOWN, 0, UNKNOWN])
        expected = -logits.log_softmax(1)[[0, 2], [2, 0]].mean()
        assert classification_loss(logits, labels) == pytest.approx(float(expected))
        assert classification_loss(logits, torch.full((4,), UNKNOWN)) == 0

    def test_every_label_weighs_alike_however_rare(self):
        labels = torch.tensor([0] * 6 + [2] * 2 + [UNKNOWN] * 5)
        balance = label_balance(labels, 4)
        np.testing.assert_allclose(balance, [8 / 12, 0, 2, 0])
        known = labels[labels != UNKNOWN]
        assert balance[known].mean() == pytest.approx(1)
        assert balance[known][known == 0].sum() == balance[known][known == 2].sum()

    def test_features_of_a_pair_are_to_point_the_same_way(self):
        one = torch.randn(3, 6)
        assert feature_loss(torch.stack([one, 5 * one], 1).flatten(0, 1)) == pytest.approx(0, abs=1e-6)
        assert feature_loss(torch.stack([one, -one], 1).flatten(0, 1)) == pytest.approx(2)
        assert feature_loss(torch.eye(4)) == 1


class TestTurns:
    def test_the_labelled_factor_and_the_shared_one_alternate(self):
        assert turns(["identity", "expression"]) == [Turn("identity", "expression"), Turn("expression", "identity")]
        three = turns(["identity", "expression", "age"])
        assert len(three) == len(set(three)) == 6
        assert {turn.labelled for turn in three} == {turn.shared for turn in three} == {"identity", "expression", "age"}
        assert turns(["identity"]) == [Turn("identity", None), Turn(None, "identity")]
        assert turns([]) == [Turn(None, None)]

    def test_codes_are_fixed_shared_or_new(self, network):
        teacher = network.teacher
        draw = lambda: teacher.draw_codes(Turn("identity", "expression"), 6, torch.Generator().manual_seed(0))  # noqa: E731
        codes, labels = draw()
        assert codes.shape == (6, network.latent_dim)
        np.testing.assert_array_equal(codes[:, network.place("identity")], teacher.codes_identity[labels])
        expression, noise = codes[:, network.place("expression")], codes[:, network.place("noise")]
        np.testing.assert_array_equal(expression[0::2], expression[1::2])
        assert len(expression.unique(dim=0)) == 3
        assert len(noise.unique(dim=0)) == 6
        np.testing.assert_array_equal(draw()[0], codes)

    def test_steps_take_their_turns(self, topology, heads):
        network = made(topology, heads)
        first = [network.teacher.next_turn() for _ in range(4)]
        assert first[0] != first[1]
        assert first[:2] == first[2:]


class TestCritic:
    def test_an_image_is_judged_alone(self):
        critic = Critic(16, (4, 8, 8), {"identity": 3})
        images = torch.randn(5, 3, 16, 16)
        scores, judged = critic(images, ["identity"])
        assert judged["identity"].features.shape == (5, 8 * 2 * 2)
        alone, _ = critic(images[2:3], [])
        np.testing.assert_allclose(alone.detach(), scores[2:3].detach(), atol=1e-6)
        np.testing.assert_allclose(critic.score(images).detach(), scores.detach(), atol=1e-6)

    def test_branches_share_the_first_two_convolutions_alone(self):
        critic = Critic(16, (4, 8, 8), {"identity": 3, "expression": 2})
        _, judged = critic(torch.randn(2, 3, 16, 16), ["identity"])
        judged["identity"].logits.sum().backward()
        moved = {name for name, weight in critic.named_parameters() if weight.grad is not None}
        assert {name.split(".")[0] for name in moved} == {"common", "classifiers"}
        assert {name.split(".")[1] for name in moved if name.startswith("classifiers")} == {"identity"}


class TestStart:
    @pytest.mark.parametrize("rank", [None, 10])
    def test_samples_vary_as_the_training_heads_do(self, topology, heads, rank):
        network = made(topology, heads, rank=rank)
        codes = torch.randn(3000, network.latent_dim, generator=torch.Generator().manual_seed(0))
        made_up = network.decode(codes)[:, network.patch].detach().flatten(1).numpy()
        known = heads.vertices[:, network.patch.numpy()].reshape(len(heads), -1)
        np.testing.assert_allclose(made_up.mean(0), known.mean(0), atol=0.01)
        one, other = (np.cov(each.T) for each in (made_up, known))
        assert np.linalg.norm(one - other) < 0.3 * np.linalg.norm(other)

    def test_each_code_moves_what_its_labels_account_for(self, network, heads):
        """Codes of two labels give a person's own shape and an expression's bump, and nothing of one another."""
        teacher, patch = network.teacher, network.patch.numpy()
        codes = torch.zeros(PEOPLE, 3, network.latent_dim)
        codes[..., network.place("identity")] = teacher.codes_identity[:, None]
        codes[..., network.place("expression")] = teacher.codes_expression
        made_up = network.decode(codes.flatten(0, 1)).detach().numpy()[:, patch].reshape(PEOPLE, 3, -1)
        known = heads.vertices[:, patch].reshape(PEOPLE, LOOKS, -1)[:, :3]
        for axis in (0, 1):
            one, other = (each.mean(axis) - each.mean((0, 1)) for each in (made_up, known))
            assert np.linalg.norm(one - other) < 0.25 * np.linalg.norm(other)

    def test_or_lie_near_the_mean(self, topology, heads):
        network = made(topology, heads, start="mean")
        moved = network.decode(torch.randn(50, network.latent_dim)) - network.mean
        assert 0 < moved.abs().max() < 0.02 * float(network.unit) * 5

    def test_what_the_critic_cannot_see_is_said(self, network):
        seen = network.teacher.image.seen()
        expected = f"images of 16 pixels a side show {100 * seen.float().mean():.0f} % of the {len(seen)} vertices"
        assert network.remark.startswith(expected)

    def test_training_heads_have_smoothness_one_and_rough_ones_far_more(self, network, heads):
        patch = network.patch.numpy()
        displacements = torch.from_numpy((heads.vertices - heads.mean)[:, patch] / float(network.unit))
        smoothness = network.teacher.smoothness
        assert float(smoothness(displacements)) == pytest.approx(1, rel=1e-3)
        assert float(smoothness(2 * displacements)) == pytest.approx(4, rel=1e-3)
        assert float(smoothness(displacements + 0.3 * torch.randn_like(displacements))) > 20
        assert float(smoothness(torch.ones(1, len(patch), 3))) == pytest.approx(0, abs=1e-4)


class TestTraining:
    def test_losses_are_finite_and_always_the_same_ones(self, topology, heads):
        losses = train(made(topology, heads), heads, range(3))
        assert all(np.isfinite(list(each.values())).all() for each in losses)
        assert all(each.keys() == losses[0].keys() for each in losses)
        assert {"total", "gap", "penalty", "real_identity", "smoothness"} < losses[0].keys()

    def test_equal_seeds_give_equal_bits_and_a_resumed_run_goes_on_as_if_unbroken(self, topology, heads, tmp_path):
        whole = made(topology, heads)
        train(whole, heads, range(4))
        first = made(topology, heads)
        optimiser = first.optimiser(learning_rate=1e-3, weight_decay=0.0)
        train(first, heads, range(2), optimiser=optimiser)
        write_checkpoint(tmp_path / "state", first, optimiser, 2, Spent())
        second = made(topology, heads)
        optimiser = second.optimiser(learning_rate=1e-3, weight_decay=0.0)
        assert read_checkpoint(tmp_path / "state", second, optimiser)[0] == 2
        train(second, heads, range(2, 4), optimiser=optimiser)
        for name, value in bits(whole).items():
            assert torch.equal(value, bits(second)[name]), name

    def test_a_generator_of_mean_heads_learns_to_vary(self, topology, heads):
        network = made(topology, heads, start="mean", teaching=replace(TEACHING, smoothness=0.02))
        codes = torch.randn(64, network.latent_dim, generator=torch.Generator().manual_seed(0))

        def variety() -> float:
            with torch.no_grad():
                displacements = network.generator(codes)
            return float((displacements - displacements.mean(0)).square().mean().sqrt())

        before = variety()
        train(network, heads, range(60), rate=1e-2)
        assert before < 0.02
        assert variety() > 0.2  # that of training heads is about 1

    def test_the_generators_step_leaves_the_critic_alone(self, topology, heads, monkeypatch):
        network = made(topology, heads)
        teacher, before = network.teacher, {}

        def watch(*args, losses=teacher.generator_losses, **named):
            before.update({name: value.clone() for name, value in bits(network).items()})
            return losses(*args, **named)

        monkeypatch.setattr(teacher, "generator_losses", watch)
        train(network, heads, range(2))
        after = bits(network)
        moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
        assert moved == {"generator"}
        assert all(weight.requires_grad for weight in teacher.critic.parameters())

    def test_instance_noise_is_gone_when_its_steps_are_over(self, topology, heads):
        def losses(noise: float, turn: int) -> dict[str, float]:
            teaching = replace(TEACHING, instance_noise=noise, instance_noise_steps=8)
            network = made(topology, heads, teaching=teaching)
            network.teacher.turn.fill_(turn)
            return train(network, heads, range(1))[0]

        assert losses(0.5, 4) != losses(0.0, 4)
        assert losses(0.5, 8) == losses(0.0, 8)

    def test_factors_are_a_list_that_can_be_longer(self, topology, heads):
        band = heads.labels["identity"] % 3
        aged = replace(heads, labels={**heads.labels, "age": band})
        network = made(topology, aged, factors={"age": 2, "identity": 4, "expression": 3})
        assert list(network.teacher.critic.classifiers) == ["age", "identity", "expression"]
        losses = train(network, aged, range(6))
        assert all({"real_age", "real_identity", "real_expression"} < each.keys() for each in losses)
        assert int(network.teacher.turn) == 6

    def test_a_weight_of_zero_leaves_its_loss_out(self, topology, heads):
        unaware = made(topology, heads, teaching=replace(TEACHING, critic_classification=0.0))
        assert not unaware.teacher.critic.classifiers
        (losses,) = train(unaware, heads, range(1))
        assert losses["classification"] == losses["features"] == 0
        assert "real_identity" not in losses
        alone = made(topology, heads, unlabelled=("expression",))
        assert list(alone.teacher.critic.classifiers) == ["identity"]
        plain = made(topology, heads, teaching=replace(TEACHING, classification=0.0, features=0.0))
        (losses,) = train(plain, heads, range(1))
        assert losses["classification"] == losses["features"] == 0 < losses["real_identity"]
        assert losses["total"] == pytest.approx(losses["realism"] + 0.3 * losses["smoothness"], rel=1e-5)

    def test_the_losses_are_the_weighted_sums_of_their_parts(self, topology, heads):
        weights = {
            "classification": 0.7,
            "features": 0.4,
            "smoothness": 0.2,
            "critic_classification": 0.6,
            "penalty": 3.0,
        }
        network = made(topology, heads, teaching=replace(TEACHING, **weights))
        for losses in train(network, heads, range(2)):
            own = sum(weights[name] * losses[name] for name in ("classification", "features", "smoothness"))
            assert losses["total"] == pytest.approx(losses["realism"] + own, rel=1e-4)
            labels = weights["critic_classification"] * (losses["real_identity"] + losses["real_expression"])
            assert losses["critic"] == pytest.approx(3 * losses["penalty"] - losses["gap"] + labels, rel=1e-4)

    def test_labels_are_learnt_and_then_shown(self, topology, heads):
        """From the mean head: the critic learns what labels look like, and the generator to show it."""
        network = made(topology, heads, start="mean", teaching=replace(TEACHING, critic_steps=1))
        losses = train(network, heads, range(300), rate=3e-3)
        for name in ("real_identity", "real_expression", "classification"):
            first, last = (np.mean([each[name] for each in part]) for part in (losses[:20], losses[-20:]))
            assert last < 0.7 * first

    def test_labels_that_no_head_has_are_not_taught(self, topology, heads):
        gap = heads.labels["identity"] + 3 * (heads.labels["identity"] > 5)
        network = made(topology, replace(heads, labels={**heads.labels, "identity": gap}))
        _, labels = network.teacher.draw_codes(Turn("identity", None), 400, torch.Generator().manual_seed(0))
        assert set(labels.tolist()) == set(gap.tolist())

    def test_no_noise_code_is_needed(self, topology, heads):
        whole = replace(heads, labels={**heads.labels, "expression": heads.labels["identity"] % 3})
        network = made(topology, whole, noise_dim=0)
        assert network.latent_dim == 8
        assert np.isfinite(list(train(network, whole, range(1))[0].values())).all()


class TestHeads:
    def test_decoded_heads_have_the_generators_face(self, network):
        codes = torch.from_numpy(drawn(network, 3))
        heads = network.decode(codes)
        assert heads.shape == (3, network.topology.size, 3)
        face = network.mean[network.patch] + network.unit * network.generator(codes)
        np.testing.assert_allclose(heads[:, network.patch].detach(), face.detach(), atol=1e-6)

    def test_a_transfer_changes_one_factor_alone(self, network, model):
        place = network.place("expression")
        head, donor = model.decode(drawn(network, 2))
        own, others = model.encode(np.stack([head, donor]))
        kept = head + 0.001  # what the model cannot show stays
        for how, code in (("replace", others[place]), ("add", others[place] + own[place])):
            wanted = own.copy()
            wanted[place] = code
            changed = transfer_factor(model, kept, donor, "expression", how=how)
            np.testing.assert_allclose(changed - kept, (model.decode(wanted[None])[0] - head), atol=2e-3)
        np.testing.assert_allclose(transfer_factor(model, kept, kept, "identity"), kept, atol=1e-6)
        with pytest.raises(InputError, match="no factor 'age'; there are identity, expression, noise"):
            transfer_factor(model, head, donor, "age")

    def test_a_file_gives_the_same_heads_without_the_training_heads(self, model, tmp_path):
        save_network(tmp_path / "toy.safetensors", model)
        again = load_network(tmp_path / "toy.safetensors")
        assert again.network.teacher is None
        codes = drawn(model.network, 3)
        np.testing.assert_array_equal(again.decode(codes), model.decode(codes))

    def test_the_file_of_a_finished_training_holds_no_critic(self, topology, heads, tmp_path):
        network = made(topology, heads)
        network.finish(heads)
        assert not [name for name in network.state_dict() if name.startswith("teacher")]
        codes = drawn(network, 2000)
        np.testing.assert_allclose(codes.mean(), 0, atol=0.05)
        np.testing.assert_allclose(codes.std(), 1, atol=0.05)

    def test_a_trained_generator_can_be_the_start(self, topology, heads, network, model, tmp_path):
        save_network(tmp_path / "toy.safetensors", model)
        torch.manual_seed(9)
        other = build_network(CONFIG, topology)
        other.start_from(load_network(tmp_path / "toy.safetensors").network.state_dict())
        other.prepare(heads)
        codes = torch.randn(2, network.latent_dim)
        assert torch.equal(other.decode(codes), network.decode(codes))
        # Labels have the codes that the generator shows them by, not new ones.
        own, again = (each.teacher.codes_identity[:, :3] for each in (network, other))  # two more numbers do nothing
        assert (own - again).square().mean() < 0.3 * own.square().mean()
        assert np.isfinite(list(train(other, heads, range(1))[0].values())).all()

    @pytest.mark.parametrize("rank", [None, 10])
    def test_codes_of_a_head_are_found_again(self, topology, heads, rank):
        network = made(topology, heads, rank=rank)
        head = network.decode(torch.from_numpy(drawn(network, 5)))
        error = (network.decode(network.encode(head)) - head)[:, network.patch].norm(dim=-1) * UNIT_MM
        assert error.mean() < 0.02
        far = head + 0.3
        found = network.encode(far)
        missed = [(network.decode(found * scale) - far)[:, network.patch].norm() for scale in (0.98, 1.0, 1.02)]
        assert min(missed) == missed[1]


class TestCompletion:
    def test_the_part_stays_and_the_rest_goes_with_it(self, topology, heads, network):
        """The rest of these heads is an affine function of the face, as their shape comes from a few numbers."""
        inside = np.zeros(topology.size, bool)
        inside[network.patch.numpy()] = True
        completion = Completion(topology.triangles, inside)
        displacements = heads.vertices - heads.mean
        completion.learn(displacements)
        whole = completion(torch.from_numpy(displacements[:, inside]), network.mean).numpy()
        np.testing.assert_array_equal(whole[:, inside], displacements[:, inside])
        left = np.linalg.norm(whole - displacements, axis=-1)[:, ~inside].mean()
        assert left < 0.02 * np.linalg.norm(displacements, axis=-1)[:, ~inside].mean()

    def test_no_seam_shows_where_the_part_does_what_no_head_did(self, topology, heads, network):
        """On a ball of 8 mm, whose edges are a tenth of that, the rest's first ring goes along."""
        inside = np.zeros(topology.size, bool)
        inside[network.patch.numpy()] = True
        completion = Completion(topology.triangles, inside)
        small = heads.mean / np.linalg.norm(heads.mean, axis=1).mean() * 8 / UNIT_MM
        completion.learn(heads.vertices - heads.mean)
        strange = torch.zeros(1, int(inside.sum()), 3)
        strange[..., 0] = torch.from_numpy(np.cos(5 * heads.mean[inside, 0] + 3 * heads.mean[inside, 1])) + 2
        moved = completion(strange, torch.from_numpy(small))[0].detach().numpy()
        ends = topology.edges[inside[topology.edges].sum(1) == 1]
        near, beyond = np.where(inside[ends[:, :1]], ends, ends[:, ::-1]).T
        gap = np.linalg.norm(moved[near] - moved[beyond], axis=1)
        assert gap.mean() < 0.25 * np.linalg.norm(moved[near], axis=1).mean()

    def test_what_no_head_ever_did_dies_away_behind_the_border(self, topology, heads, network):
        inside = np.zeros(topology.size, bool)
        inside[network.patch.numpy()] = True
        strange = torch.zeros(1, int(inside.sum()), 3)
        strange[:, ::7] = 1
        completion = Completion(topology.triangles, inside)  # that has learnt nothing
        moved = completion(strange, network.mean)[0].norm(dim=-1).numpy()
        far = np.asarray(heads.mean[:, 2]) < -0.2
        assert moved[far & ~inside].max() < 1e-2 * moved[inside].mean()


class TestLandmarks:
    def fitted(self, network: Adversarial, stride: int, code: np.ndarray, weight: float) -> np.ndarray:
        vertices = network.patch[::stride]
        with torch.no_grad():
            points = network.decode(torch.from_numpy(code))[:, vertices].numpy()
        rng = np.random.default_rng(0)
        landmarks = lambda codes: network.decode(codes)[:, vertices]  # noqa: E731
        size = network.latent_dim
        return np.stack([fit_landmarks(landmarks, own, size=size, weight=weight, rng=rng) for own in points])

    def test_codes_of_heads_are_found_again(self, network):
        wanted = 0.7 * drawn(network, 2, 5)
        found = self.fitted(network, 5, wanted, weight=0.0)
        heads, others = (network.decode(torch.from_numpy(code)) for code in (wanted, found))
        assert (heads - others).norm(dim=-1).mean() * UNIT_MM < 0.1

    def test_a_weight_keeps_codes_likely(self, network):
        code = 3 * drawn(network, 1, 5)
        squares = [np.square(self.fitted(network, 30, code, weight)).sum() for weight in (1e6, 10.0, 0.01)]
        assert squares[0] < 1e-3 < squares[1] < squares[2]

    def test_points_that_are_no_landmarks_are_refused(self, network):
        with pytest.raises(InputError, match=r"shape \(3, 3\) given; expected \(2, 3\)"):
            fit_landmarks(
                lambda codes: network.decode(codes)[:, :2],
                np.zeros((3, 3)),
                size=network.latent_dim,
                weight=0.0,
                rng=np.random.default_rng(0),
            )


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"factors": {}}, "factors is"),
            ({"factors": {"noise": 3}}, "of no factor 'noise'"),
            ({"factors": {"identity": 0}}, "sizes of at least 1"),
            ({"unlabelled": ("age",)}, "unlabelled names 'age'; the factors are identity, expression"),
            ({"noise_dim": -1}, "noise_dim is -1"),
            ({"width": 0}, "width is 0"),
            ({"rank": 9}, "rank is 9; give at least 10"),
            ({"regions": ()}, "regions is empty"),
            ({"betas": (0.0, 1.0)}, "betas is"),
        ],
    )
    def test_sizes_out_of_range(self, change, message):
        with pytest.raises(InputError, match=message):
            replace(CONFIG, **change).validate()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"channels": (8, 8)}, "give three or more"),
            ({"image_size": 20}, "give a multiple of 8"),
            ({"critic_steps": 0}, "critic_steps is 0"),
            ({"instance_noise_steps": 0}, "instance_noise_steps is 0"),
            ({"smoothness": -0.1}, "smoothness is -0.1"),
            ({"instance_noise": -1.0}, "instance_noise is -1"),
        ],
    )
    def test_teaching_out_of_range(self, change, message):
        with pytest.raises(InputError, match=message):
            replace(TEACHING, **change).validate()

    def test_a_factor_that_no_head_is_labelled_with(self, topology, heads):
        with pytest.raises(InputError, match="no head has a label of the factor 'age'; there are identity, expression"):
            made(topology, heads, factors={"identity": 5, "age": 2})

    def test_labels_that_are_not_counted_from_0(self, topology, heads):
        odd = replace(heads, labels={**heads.labels, "identity": heads.labels["identity"] * 10})
        with pytest.raises(InputError, match="labels of 'identity' go up to 110 for 48 heads; count them from 0"):
            made(topology, odd)

    def test_a_region_that_the_head_has_not(self, topology):
        with pytest.raises(InputError, match="no region 'nose'; there are face, rest"):
            build_network(replace(CONFIG, regions=("nose",)), topology)

    def test_an_odd_batch(self, network, heads):
        optimiser, generator = network.optimiser(learning_rate=1e-3, weight_decay=0.0), torch.Generator()
        with pytest.raises(InputError, match="batch is 3; give an even number"):
            network.train_step(drawing(heads, generator), optimiser, batch=3, generator=generator)

    def test_a_weight_decay(self, network):
        with pytest.raises(InputError, match=r"weight_decay is 0\.1"):
            network.optimiser(learning_rate=1e-3, weight_decay=0.1)

    def test_a_factor_without_a_code(self, network):
        with pytest.raises(InputError, match="no factor 'age'; there are identity, expression, noise"):
            network.place("age")


def test_the_config_survives_yaml():
    assert from_mapping(AdversarialConfig, to_mapping(CONFIG)) == CONFIG


def watched(config, **changes):
    """A config that notes which of its settings are read, and the notes."""
    seen = set()

    class Watched(type(config)):
        def __getattribute__(self, name):
            seen.add(name)
            return super().__getattribute__(name)

    copy = object.__new__(Watched)
    vars(copy).update(vars(config) | changes)
    seen.clear()
    return copy, seen


def test_every_setting_is_read(topology, heads):
    teaching, seen_by_teacher = watched(TEACHING)
    config, seen = watched(CONFIG, teaching=teaching)
    network = Adversarial(config, topology)
    network.see(heads)
    network.prepare(heads)
    train(network, heads, range(1))
    assert to_mapping(CONFIG).keys() <= seen
    assert to_mapping(TEACHING).keys() <= seen_by_teacher
