"""Backbones over a few tokens, which both of LAMM's forms share with vision models: MLP-Mixer and Transformer.

A stack gives its tokens after every layer, the last one normalised, as LAMM's multilayer loss needs them.
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Stack(nn.Module):
    """Layers of one kind and a normalisation after the last."""

    def __init__(self, layers: int, width: int, make: Callable[[], nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Float[Tensor, "b k d"]) -> list[Float[Tensor, "b k d"]]:
        """The tokens given, then those after each layer, the last ones normalised."""
        states = [tokens]
        for layer in self.layers:
            states.append(layer(states[-1]))
        states[-1] = self.norm(states[-1])
        return states


class MixerLayer(nn.Module):
    """A layer of an MLP-Mixer (Tolstikhin et al. 2021): over tokens, then over channels."""

    def __init__(self, tokens: int, width: int, dropout: float):
        super().__init__()
        self.over_tokens = _network(tokens, 4 * tokens, dropout)
        self.over_channels = _network(width, width // 2, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """The tokens after this layer."""
        tokens = tokens + self.over_tokens(self.norms[0](tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.over_channels(self.norms[1](tokens))


class TransformerLayer(nn.Module):
    """A layer of a Transformer (Vaswani et al. 2017), normalised before each half, with heads of 64 channels."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.heads = max(width // 64, 1)
        self.reads = nn.Linear(width, 3 * width, bias=False)
        self.writes = nn.Linear(width, width, bias=False)
        self.over_channels = _network(width, 4 * width, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = dropout

    def forward(self, tokens: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """The tokens after this layer."""
        read = self.reads(self.norms[0](tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = read.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        tokens = tokens + self.writes(seen.transpose(1, 2).flatten(2))
        return tokens + self.over_channels(self.norms[1](tokens))


def _network(width: int, inner: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, width), nn.Dropout(dropout)
    )
