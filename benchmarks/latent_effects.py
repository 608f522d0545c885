"""Effect of each latent of a chunk on the decoded chunk, and its spread over time."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from partita.evaluation.metrics import LogMelL1
from partita_core import ChannelLayout, Codec, PartitaError, Sampler
from torch import Tensor

Clips = Iterable[tuple[str, Tensor, ChannelLayout | str]]

# Effects below this share of the clip's largest effect count as none.
_NO_EFFECT = 1e-6


@dataclass(frozen=True)
class EffectSpread:
    """Distribution over time of the effects of the latents of one clip.

    Attributes:
        entropy: entropy of the effect's distribution over the frames of a chunk, relative to that of a uniform one: 1
            if it is equal in all frames, 0 if it is in one frame only; mean over latents.
        gini: Gini coefficient of the effect over frames: 0 if it is equal in all, towards 1 if it is in one frame only;
            mean over latents.
        order: correlation, over all latents, of the index among the K of a chunk with the effect's center in time: 1
            if latents are in temporal order.
        placed: share of the variance of the centers that the index among the K explains, in any order, less what it
            would explain by chance, so slightly negative values are possible.
    """

    entropy: float
    gini: float
    order: float
    placed: float


@torch.no_grad()
def mean_tokens(codec: Codec, clips: Clips) -> Tensor:
    """Mean over clips and frames of each of the K latents of a frame, `(dim, K)` float64.

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
        raise PartitaError("there are no clips to compute the mean latents of")
    return total / count


@torch.no_grad()
def latent_effects(
    codec: Codec,
    audio: Tensor,
    layout: ChannelLayout | str,
    tokens: Tensor,
    *,
    chunk: int,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> Tensor:
    """Change of each frame of a chunk when one of the chunk's latents is replaced by the mean.

    The change is the mean over channels and bands of the log-mel difference of the two reconstructions, with equal
    noise. One latent is replaced in all chunks at once, so chunks must be decoded independently (`Independent`).

    Args:
        codec: model with one frame of latents per chunk.
        audio: `(channels, samples)` at the model's sample rate.
        layout: channel layout of the audio.
        tokens: replacements of the latents, `(dim, K)`; see `mean_tokens`.
        chunk: samples per chunk.
        sampler: sampler of the decoder; None for its default.
        seed: noise seed.

    Returns:
        `(K, chunks, frames per chunk)` float64, of complete chunks only.

    Raises:
        PartitaError: a chunk has several frames of latents, or the clip has no complete chunk.
    """
    spec = codec.latent_spec
    if spec.hop != chunk:
        raise PartitaError(f"a chunk has {chunk} samples and a frame of latents {spec.hop}; they must be equal")
    if audio.shape[-1] < chunk:
        raise PartitaError(f"a clip of {audio.shape[-1]} samples has no complete chunk of {chunk}; leave it out")
    metric = LogMelL1(spec.sample_rate)
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


def by_chunk(frames: Tensor, *, hop: int, chunk: int) -> Tensor:
    """Group frames by the complete chunk that contains their center.

    Args:
        frames: `(..., 1 + samples // hop)`, frame t centered on sample `t * hop`.
        hop: samples from frame to frame.
        chunk: samples per chunk.

    Returns:
        `(..., samples // chunk, chunk // hop)`.

    Raises:
        PartitaError: the chunk is not a multiple of the hop.
    """
    if chunk % hop:
        raise PartitaError(f"a chunk of {chunk} samples is not a multiple of the hop of {hop}; choose another hop")
    width = chunk // hop
    complete = (frames.shape[-1] - 1) // width
    return frames[..., : complete * width].unflatten(-1, (complete, width))


def effect_spread(effects: Tensor) -> EffectSpread:
    """Distribution over time of non-negative effects `(K, chunks, frames)`, without latents that have no effect.

    Raises:
        PartitaError: no latent has an effect.
    """
    effects = effects.double()
    k, _, frames = effects.shape
    effective = effects.sum(-1) > _NO_EFFECT * effects.sum(-1).max()
    if not effective.any():
        raise PartitaError(f"none of the {k} latents has an effect; is the decoder's last layer still zero?")
    share = effects[effective] / effects[effective].sum(-1, keepdim=True)  # (latents, frames)
    entropy = torch.special.entr(share).sum(-1) / torch.tensor(float(frames)).log()
    rank = torch.arange(1, frames + 1, dtype=torch.float64)
    gini = (share.sort(dim=-1).values * (2 * rank - frames - 1)).sum(-1) / frames
    center = (share * (rank - 0.5) / frames).sum(-1)
    slot = torch.arange(k, dtype=torch.float64)[:, None].expand_as(effective)[effective]
    return EffectSpread(float(entropy.mean()), float(gini.mean()), _correlation(slot, center), _explained(slot, center))


def _correlation(x: Tensor, y: Tensor) -> float:
    """Pearson correlation; 0 if an input is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = (x.square().sum() * y.square().sum()).sqrt()
    return float((x * y).sum() / scale) if scale else 0.0


def _explained(group: Tensor, y: Tensor) -> float:
    """Share of the variance of `y` between groups, unbiased (Kelley's epsilon squared); 0 without variance."""
    groups = group.unique()
    within = torch.stack([(y[group == each] - y[group == each].mean()).square().sum() for each in groups]).sum()
    total, spare = (y - y.mean()).square().sum(), len(y) - len(groups)
    return float(1 - within / spare / (total / (len(y) - 1))) if total and spare else 0.0
