"""Generator: a language model that continues a text prompt with the latents of a codec."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from partita_core import (
    ChannelLayout,
    Codec,
    Config,
    Frozen,
    LatentNormalizer,
    Latents,
    PartitaError,
    RepresentationEncoder,
    Saved,
    as_layouts,
    as_seeds,
    component_field,
    length_mask,
    register,
    short_repr,
)
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone, LlamaBackboneConfig, check_prompts, self_contained
from .flow_head import FlowHeadConfig
from .heads import GenerationHead, GenerationHeadConfig, HeadOutput, Rollout, Sampling, Start

if TYPE_CHECKING:
    from partita_representation import RepresentationModel

Layouts = ChannelLayout | str | int | Sequence[ChannelLayout | str | int] | Tensor


@register("generator")
@dataclass(frozen=True)
class GeneratorConfig(Config):
    """A language model on the latents of a trained codec.

    Attributes:
        head: generation head: a flow for continuous latents, tokens for codes.
        language_model: language model to train: a new or a pretrained one.
        stop: also learn to predict the ends of recordings.
    """

    needs_codec: ClassVar[bool] = True

    head: GenerationHeadConfig = component_field("generation_head", default=FlowHeadConfig())
    language_model: Config = component_field("language_model", default=LlamaBackboneConfig())
    stop: bool = False

    def build(self, *, codec: "Codec | RepresentationModel") -> "Generator":
        """Build the generator for a codec, or for a representation model, whose encoder then embeds the latents.

        Raises:
            PartitaError: the head does not support the latents, or the language model does not exist.
        """
        plain, encoder = codec_and_encoder(codec)
        ids = self.head.own_ids(plain.latent_spec)
        backbone = self.language_model.build(own_ids=ids, output=ids > 0)
        scale = LatentNormalizer(plain.latent_spec)
        head = self.head.build(codec=plain, encoder=encoder, scale=scale, states=backbone.width)
        return Generator(codec, backbone, head, stop=self.stop)

    @classmethod
    def example(cls) -> Self:
        """Tiny parts."""
        return cls(FlowHeadConfig.example(), LlamaBackboneConfig.example(), stop=True)


class GeneratorOutput(NamedTuple):
    """Output of a generator for known latents.

    Attributes:
        head: loss and metrics of the head.
        states: states that each step is predicted from, `(batch, steps, width)`.
    """

    head: HeadOutput
    states: Tensor


class Generator(Saved):
    """Autoregressive generation of latents, one patch or code per step (as in F3-Tokenizer, arXiv 2606.06357).

    The codec is frozen. The language model's inputs are the prompt's bytes or tokens, the start id of a channel layout,
    and one embedding per step of the latents, made by the head or by a representation encoder. The head predicts the
    latents of each step from the state before it.

    Attributes:
        base: codec or representation model, frozen.
        backbone: language model.
        head: generation head.
        stop: classifier of states that predicts whether the recording has ended; None if that is not learned.
    """

    def __init__(
        self, base: "Codec | RepresentationModel", backbone: Backbone, head: GenerationHead, *, stop: bool
    ) -> None:
        """Assemble the parts.

        Raises:
            PartitaError: the codec scales each frame, and a generator does not predict that gain.
        """
        super().__init__()
        codec, _ = codec_and_encoder(base)
        if codec.has_gain:
            kind = type(codec).__name__
            raise PartitaError(f"{kind} needs a gain per frame, which a generator does not predict; use another codec")
        self.base = Frozen(base)
        self.backbone, self.head = backbone, head
        self.stop = nn.Linear(backbone.width, 1) if stop else None

    @property
    def codec(self) -> Codec:
        """Codec of the latents."""
        return codec_and_encoder(self.base.module)[0]  # pyright: ignore[reportArgumentType]

    def forward(self, target: Tensor, frames: Tensor, prompts: Sequence[str], layout: Tensor) -> GeneratorOutput:
        """Predict every step of known latents from the steps before it.

        Args:
            target: codec values `(batch, dim, frames * K)`, or codes for a token head.
            frames: number of frames per item without padding, `(batch,)` int64.
            prompts: text prompts, empty for none.
            layout: channel layout of the codec's network per item, `(batch,)` int64.
        """
        ids, mask = self.backbone.read(prompts, layout)
        inputs = self.head.inputs(target, self.backbone)[:, :-1]
        embeddings = torch.cat([self.backbone.embed(ids), inputs], dim=1)
        states = self.backbone(embeddings, F.pad(mask, (0, inputs.shape[1]), value=1))[:, ids.shape[1] - 1 :]
        return GeneratorOutput(self.head(states, target, frames, self.backbone), states)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seconds: float,
        *,
        seed: int | Sequence[int] | Tensor = 0,
        guidance: float = 1.5,
        temperature: float = 1.0,
        steps: int | None = None,
        top_k: int | None = None,
        layout: Layouts | None = None,
        stop: bool = False,
        audio: Latents | None = None,
    ) -> Latents:
        """Sample latents of a given duration, for `codec.decode`.

        Each item depends only on its own prompts, layout and seed, not on the other items of the batch.

        Args:
            prompts: text prompt per item, empty for none.
            seconds: duration of the audio.
            seed: noise seed, one for the batch or one per item.
            guidance: scale of classifier-free guidance; 1 for none.
            temperature: lower is less diverse; scales a flow's initial noise, or divides codes' logits (0 for argmax).
            steps: integration steps of a flow; None for 10. Not for codes.
            top_k: number of most likely codes that are considered; None for all. Not for a flow.
            layout: channel layout, one for the batch or one per item; None for stereo, or the codec's first layout.
            stop: end an item early if the recording is predicted to have ended.
            audio: latents that each item starts with and continues; complete frames, for a flow complete patches.

        Raises:
            PartitaError: the batch or the duration is empty, the language model has too few positions, it has not
                learned to stop, the codec does not support the layout, a setting is out of range or not supported by
                the head, or the audio prompt is too long or of another codec.
        """
        sampling = Sampling(guidance, temperature, steps, top_k)
        spec = self.codec.latent_spec
        check_prompts(prompts)
        if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
            raise PartitaError(f"seconds is {short_repr(seconds)}; it must be a finite number")
        if audio is not None and not isinstance(audio, Latents):
            raise PartitaError(f"the audio prompt is a {type(audio).__name__}; it must be Latents of the codec")
        samples, batch = round(seconds * spec.sample_rate), len(prompts)
        if samples < 1 or not batch:
            raise PartitaError(f"{batch} prompts and {seconds} seconds are given; both must be larger than 0")
        if stop and self.stop is None:
            raise PartitaError("stop is set, but this model was trained without model.stop=true; leave it out")
        if audio is not None and len(audio) != batch:
            raise PartitaError(f"there are {batch} prompts and {len(audio)} audio prompts; the numbers must be equal")
        layouts = self._layouts(audio.layout if layout is None and audio is not None else layout, batch)
        seeds, frames = as_seeds(seed, batch), spec.frames(samples)
        total_steps, positions = self.head.steps(frames), self.backbone.positions
        length = self.backbone.read(prompts, layouts)[0].shape[1] + total_steps
        if length > positions:
            raise PartitaError(
                f"{seconds:g} seconds are {total_steps} steps, {length} with the prompt, but the language model has "
                f"{positions} positions; reduce seconds"
            )
        start = None if audio is None else self._start(audio, batch, frames)
        ended = torch.full((batch,), frames)
        with torch.autocast(self.backbone.model.device.type, enabled=False):
            rollout = self.head.rollout(frames, seeds, sampling, self.backbone, start)
            for step, states in enumerate(self._states(rollout, frames, list(prompts), layouts, sampling.guidance)):
                complete = self.head.frames(step)
                if stop and complete:
                    assert self.stop is not None
                    over = self.stop(states).squeeze(-1).cpu() > 0
                    if start is not None:
                        over &= complete >= start.frames
                    ended = torch.where(over, ended.clamp(max=complete), ended)
                    if int(ended.max()) <= complete:
                        break
        result = rollout.result()
        ended = ended.clamp(max=result.shape[-1] // spec.tokens_per_frame)
        return self._latents(result, (ended * spec.hop).clamp(max=samples), layouts)

    def _start(self, audio: Latents, batch: int, frames: int) -> Start:
        """Convert the audio prompt for the head.

        Raises:
            PartitaError: it is of another codec, too long, or has no codes (token head) or no values (flow head).
        """
        self.codec.check_latents(audio)
        given = audio.audio_lengths // self.codec.latent_spec.hop
        if int(given.max()) >= frames:
            prompt = f"the audio prompt has {int(given.max())} frames"
            raise PartitaError(f"{prompt}, but only {frames} frames are generated, prompt included; increase seconds")
        target = audio.codes if self.head.of_codes else audio.denormalize().values if audio.normalized else audio.values
        if target is None:
            kind = "codes" if self.head.of_codes else "continuous latents"
            raise PartitaError(f"the audio prompt has no {kind}, which this model continues; encode it with the codec")
        return Start(target, given)

    def _states(
        self, rollout: Rollout, frames: int, prompts: list[str], layout: Tensor, guidance: float
    ) -> Iterator[Tensor]:
        """Yield the states `(batch, width)` before each step, and sample the step before yielding the next ones.

        One iteration per step, with a cache of keys and values; a caller that stops iterating ends generation:

            prompt + start id ──> backbone ──> states ──yield──> caller (has the recording ended?)
                                     ^           │ resumed
                                     │           v
                                 embedding <── rollout.push(states): samples the step, keeps it for rollout.result()

        With guidance the batch is doubled: its second half has empty prompts and the same embeddings.
        """
        from transformers import DynamicCache

        batch, doubled = len(prompts), guidance != 1 and any(prompts)
        if doubled:
            prompts, layout = prompts + [""] * batch, layout.repeat(2)
        ids, mask = self.backbone.read(prompts, layout)
        cache, embeddings = DynamicCache(), self.backbone.embed(ids)
        for step in range(self.head.steps(frames)):
            if step:
                mask = F.pad(mask, (0, 1), value=1)
            states = self.backbone(embeddings, mask, cache)[:, -1]
            yield states[:batch]
            inputs = rollout.push(states[:batch], states[batch:] if doubled else None)
            embeddings = (torch.cat([inputs, inputs]) if doubled else inputs)[:, None]

    def _layouts(self, layout: Layouts | None, batch: int) -> Tensor:
        supported = self.codec.audio_spec.layouts
        if layout is None:
            layout = ChannelLayout.STEREO if ChannelLayout.STEREO in supported else supported[0]
        layouts = as_layouts(layout, batch)
        for item in layouts.tolist():
            if item not in supported:
                names = ", ".join(one.name.lower() for one in supported)
                raise PartitaError(f"layout is {ChannelLayout(item).name.lower()}; the codec supports {names}")
        return layouts

    def _latents(self, result: Tensor, lengths: Tensor, layout: Tensor) -> Latents:
        codec, spec = self.codec, self.codec.latent_spec
        tokens = spec.tokens(lengths)
        result = result[..., : int(tokens.max())]
        inside = length_mask(tokens, result.shape[-1]).to(result.device)
        result = torch.where(inside[:, None], result, -1 if self.head.of_codes else 0)
        values, codes = (None, result) if self.head.of_codes else (result, None)
        codes_id = codec.codes_id if self.head.of_codes else None
        return Latents(values, codes, lengths, layout, spec, codec.space_id, codes_id)

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """Config of the generator, from those of its parts; see `Saved`."""
        head, language_model = (getattr(part, "config", None) for part in (self.head, self.backbone))
        if not isinstance(head, GenerationHeadConfig) or not isinstance(language_model, Config):
            raise PartitaError("the parts of this generator have no registered Configs; build it from its Config")
        self.nested()  # raises if the codec cannot be saved
        language_model = self_contained(language_model, self.backbone)
        return GeneratorConfig(head, language_model, stop=self.stop is not None), {}

    def restore(self, facts: dict[str, Any]) -> None:
        """Restore nothing: the Config is complete; see `Saved`."""

    def nested(self) -> dict[str, Saved]:
        """Codec or representation model; see `Saved`."""
        base = self.base.module
        if not isinstance(base, Saved):
            raise PartitaError(f"{type(base).__name__} cannot be saved, so models with it cannot be saved either")
        return {"codec": base}


def codec_and_encoder(base: "Codec | RepresentationModel") -> tuple[Codec, RepresentationEncoder | None]:
    """Codec of `base`, and its representation encoder, or None if `base` is a codec."""
    return (base, None) if isinstance(base, Codec) else (base.codec, base.encoder)
