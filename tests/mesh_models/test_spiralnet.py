from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.base import Batch, build_network
from implicit3dmm.mesh_models.model import MeshModel, load_network, save_network
from implicit3dmm.mesh_models.spiralnet import SpiralNet, SpiralNetConfig

SMALL = SpiralNetConfig(latent_dim=6, channels=(8, 12), length=7)


def network(ball, balls=None, seed: int = 0) -> SpiralNet:
    torch.manual_seed(seed)
    made = build_network(SMALL, ball)
    if balls is not None:
        made.see(balls)
    return made


def plainly(net: SpiralNet, vertices: torch.Tensor) -> torch.Tensor:
    """The same auto-encoder by indexing: convolve at every vertex, then pool; interpolate, then convolve."""

    def conv(layer, features, level):
        return layer.linear(features[:, net.get_buffer(f"spirals_{level}").long()].flatten(2))

    features = net.normalised(vertices)
    for level, layer in enumerate(net.encoder):
        features = F.elu(conv(layer, features, level))[:, net.get_buffer(f"kept_{level}").long()]
    features = net.up(net.down(features.flatten(1))).view(len(vertices), -1, SMALL.channels[-1])
    for level in (1, 0):
        corners, weights = net.get_buffer(f"corners_{level}").long(), net.get_buffer(f"weights_{level}")
        features = (features[:, corners] * weights[..., None]).sum(2)
        features = F.elu(conv(net.decoder[level], features, level))
    return conv(net.last, features, 0)


def test_it_is_convolution_pooling_and_interpolation_one_after_the_other(ball, balls):
    net = network(ball, balls)
    vertices = torch.from_numpy(balls.vertices[:3])
    fast, slow = net.decoded(net.encode(vertices)), plainly(net, vertices)
    assert slow.abs().mean() > 0.01
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    weighting = torch.randn(slow.shape)
    for made in (fast, slow):
        net.zero_grad()
        (made * weighting).sum().backward()
        if made is fast:
            wanted = {name: value.grad.clone() for name, value in net.named_parameters()}
    for name, value in net.named_parameters():
        torch.testing.assert_close(wanted[name], value.grad, rtol=1e-3, atol=1e-3 * value.grad.abs().max().item())


def test_a_few_steps_lower_the_loss_below_that_of_the_mean(ball, balls):
    net = network(ball, balls)
    vertices = torch.from_numpy(balls.vertices)
    optimiser = net.optimiser(learning_rate=5e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        chosen = vertices[torch.randint(len(vertices), (count,), generator=generator)]
        return Batch(chosen, chosen, {})

    for _step in range(60):
        losses = net.train_step(draw, optimiser, batch=8, generator=generator)
    assert losses["heads"] == pytest.approx(losses["total"] * net.unit.item())
    assert losses["total"] < 0.5 * net.normalised(vertices).abs().mean()


def test_the_weights_file_gives_the_same_bits_back(ball, balls, tmp_path):
    model = MeshModel(network(ball, balls).eval().requires_grad_(False), {"name": "balls"})
    save_network(tmp_path / "net.safetensors", model)
    again = load_network(tmp_path / "net.safetensors")
    codes = model.encode(balls.vertices)
    assert (again.encode(balls.vertices) == codes).all()
    assert (again.decode(codes) == model.decode(codes)).all()
    assert codes.std() > 0.01


def test_starting_from_another_takes_over_its_levels(ball, balls):
    trained = network(ball, balls)
    few = replace(balls, vertices=balls.vertices[:2], rest=balls.rest[:2], subjects=balls.subjects[:2])
    fresh = network(ball, few, seed=1)
    vertices = torch.from_numpy(balls.vertices)
    assert not torch.equal(fresh.encode(vertices), trained.encode(vertices))
    fresh.start_from(trained.state_dict())
    assert torch.equal(fresh.encode(vertices), trained.encode(vertices))


def test_a_head_has_the_same_code_alone_and_among_others(ball, balls):
    net = network(ball, balls)
    vertices = torch.from_numpy(balls.vertices)
    codes = net.encode(vertices)
    torch.testing.assert_close(net.encode(vertices[5:6]), codes[5:6], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.decode(codes[5:6]), net.decode(codes)[5:6], rtol=1e-4, atol=1e-5)


def test_more_levels_than_the_mesh_has_are_refused(ball):
    with pytest.raises(InputError, match="4 channels bring 642 vertices to 3; expected at least 4; give fewer"):
        build_network(SpiralNetConfig(), ball)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_dim": 0}, "latent_dim is 0; expected at least 1"),
        ({"factor": 1}, "factor is 1; expected at least 2"),
        ({"length": 0}, "length is 0"),
        ({"channels": ()}, r"channels is \[\]"),
        ({"channels": (8, 0)}, r"channels is \[8, 0\]"),
    ],
)
def test_a_wrong_size_is_named(wrong, message):
    with pytest.raises(InputError, match=message):
        SpiralNetConfig(**wrong).validate()
