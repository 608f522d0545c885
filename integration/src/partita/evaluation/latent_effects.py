"""What each latent of a chunk does to the chunk: when its effect is felt, and whether its place says so."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from partita_core import ChannelLayout, Codec, PartitaError
from torch import Tensor

from .chunks import by_chunk
from .metrics.log_mel_l1 import LogMelL1Config

Clips = Iterable[tuple[str, Tensor, ChannelLayout | str]]

# Less than this share of the largest effect of a clip is none: nothing is spread over time there.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Spread:
    """How the effects of the latents of one clip lie in time.

    Attributes:
        entropy: of the effect's distribution over the frames of a chunk, as a share of that of an even one: 1 is
            felt everywhere alike, 0 in one frame only; the mean over latents.
        gini: Gini coefficient of the effect over frames: 0 is even, towards 1 is one frame only; the mean over latents.
        order: correlation, over all latents, of the place among the K of a chunk with the effect's center in time: 1
            where latents are in the order of time.
        placed: share of the centres' variance that the place among the K explains, in whatever order, less what it
            would by chance; so it may be slightly negative.
    """

    entropy: float
    gini: float
    order: float
    placed: float


@torch.no_grad()
def mean_tokens(codec: Codec, clips: Clips) -> Tensor:
    """The mean over clips and frames of each of the K latents of a frame, `(dim, K)` float64.

    Raises:
        PartitaError: there are no clips.
    """
    total, count = None, 0
    for _, audio, layout in clips:
        values = codec.encode(audio[None], layout=layout).values
        assert values is not None
        frames = values[0].cpu().double().unflatten(-1, (-1, codec.latent_spec.tokens_per_frame))
        total = frames.sum(1) + (0 if total is None else total)
        count += frames.shape[1]
    if total is None:
        raise PartitaError("there are no clips to take the mean latents of")
    return total / count


@torch.no_grad()
def latent_effects(
    codec: Codec,
    audio: Tensor,
    layout: ChannelLayout | str,
    tokens: Tensor,
    *,
    chunk: int,
    sampler: Any = None,
    seed: int = 0,
) -> Tensor:
    """How much each frame of a chunk changes when one of the chunk's latents is replaced by the mean.

    The change is the mean over channels and bands of the log-mel difference between the two reconstructions, with
    equal noise. One latent is replaced in all chunks at a time, so that chunks must be decoded apart (`Independent`)
    for the change to be its own.

    Args:
        codec: the model, of one frame of latents a chunk.
        audio: `(channels, samples)` at the model's rate.
        layout: of the audio.
        tokens: what the latents are replaced with, `(dim, K)`; see `mean_tokens`.
        chunk: samples of a chunk.
        sampler: how the decoder is run.
        seed: of the noise.

    Returns:
        `(K, chunks, frames of a chunk)` float64, of whole chunks only.

    Raises:
        PartitaError: a chunk has several frames of latents, or the clip no whole chunk.
    """
    spec = codec.latent_spec
    if spec.hop != chunk:
        raise PartitaError(f"a chunk of {chunk} samples is not one frame of latents, which has {spec.hop}")
    if audio.shape[-1] < chunk:
        raise PartitaError(f"a clip of {audio.shape[-1]} samples has no whole chunk of {chunk}; leave it out")
    metric = LogMelL1Config().build(sample_rate=spec.sample_rate)
    latents = codec.encode(audio[None], layout=layout)
    assert latents.values is not None
    before = codec.decode(latents, sampler=sampler, seed=seed)[0]
    effects = []
    for k in range(spec.tokens_per_frame):
        values = latents.values.clone()
        values[..., k :: spec.tokens_per_frame] = tokens[:, k, None].to(values)
        after = codec.decode(replace(latents, values=values), sampler=sampler, seed=seed)[0]
        change = metric.differences(after, before).mean((0, 1)).double()
        effects.append(by_chunk(change, hop=metric.hop, chunk=chunk))
    return torch.stack(effects)


def spread(effects: Tensor) -> Spread:
    """How effects `(K, chunks, frames)`, none negative, lie in time; what has no effect in a chunk is left out.

    Raises:
        PartitaError: no latent has an effect.
    """
    effects = effects.double()
    k, _, frames = effects.shape
    felt = effects.sum(-1) > _NOTHING * effects.sum(-1).max()
    if not felt.any():
        raise PartitaError(f"none of {k} latents has an effect: is the decoder's last layer still zero?")
    share = effects[felt] / effects[felt].sum(-1, keepdim=True)  # (latents, frames)
    entropy = torch.special.entr(share).sum(-1) / torch.tensor(float(frames)).log()
    rank = torch.arange(1, frames + 1, dtype=torch.float64)
    gini = (share.sort(dim=-1).values * (2 * rank - frames - 1)).sum(-1) / frames
    center = (share * (rank - 0.5) / frames).sum(-1)
    slot = torch.arange(k, dtype=torch.float64)[:, None].expand_as(felt)[felt]
    return Spread(float(entropy.mean()), float(gini.mean()), _correlation(slot, center), _explained(slot, center))


def _correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's; 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = (x.square().sum() * y.square().sum()).sqrt()
    return float((x * y).sum() / scale) if scale else 0.0


def _explained(group: Tensor, y: Tensor) -> float:
    """The share of the variance of `y` that lies between groups, unbiased (Kelley's epsilon squared); 0 without any."""
    groups = group.unique()
    within = torch.stack([(y[group == each] - y[group == each].mean()).square().sum() for each in groups]).sum()
    total, spare = (y - y.mean()).square().sum(), len(y) - len(groups)
    return float(1 - within / spare / (total / (len(y) - 1))) if total and spare else 0.0
