"""A language model that continues a prompt with the latents of a codec."""

import math
from collections.abc import Sequence
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
    component,
    length_mask,
    register,
    shown,
)
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone, LlamaBackboneConfig, check_prompts, self_contained
from .flow_head import FlowHeadConfig
from .heads import GenerationHead, GenerationHeadConfig, HeadOutput, Sampling, Start

if TYPE_CHECKING:
    from partita_representation import RepresentationModel

Layouts = ChannelLayout | str | int | Sequence[ChannelLayout | str | int] | Tensor


@register("generator")
@dataclass(frozen=True)
class GeneratorConfig(Config):
    """A language model on the latents of a codec that is trained already.

    Attributes:
        head: between states and latents: flow for continuous ones, tokens for codes.
        language_model: what is trained: one of one's own, or a pretrained one.
        stop: whether it also learns where recordings end.
    """

    needs_codec: ClassVar[bool] = True

    head: GenerationHeadConfig = component("generation_head", default=FlowHeadConfig())
    language_model: Config = component("language_model", default=LlamaBackboneConfig())
    stop: bool = False

    def build(self, *, codec: "Codec | RepresentationModel") -> "Generator":
        """Builds it for the latents of a codec, heard as they are, or through the encoder of a representation model.

        Raises:
            PartitaError: head and latents do not fit, or there is no such language model.
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
    """What a generator makes of latents that are known.

    Attributes:
        head: loss and metrics of the head.
        states: `(batch, steps, width)`, what each step is predicted from.
    """

    head: HeadOutput
    states: Tensor


class Generator(Saved):
    """Prompt, start, and then latents, patch by patch or code by code (as in F3-Tokenizer, arXiv 2606.06357).

    The codec is frozen. The language model sees the prompt's bytes or tokens, the start of a channel layout, and each
    step of the latents as the head, or the representation encoder before it, lets it be heard; of its states the head
    makes the latents of the next step.

    Attributes:
        base: the codec, or the representation model, frozen.
        backbone: the language model.
        head: between states and latents.
        stop: says of a state whether the recording has ended; None where that is not learned.
    """

    def __init__(
        self, base: "Codec | RepresentationModel", backbone: Backbone, head: GenerationHead, *, stop: bool
    ) -> None:
        """Assembles the parts.

        Raises:
            PartitaError: the codec takes the gain of each frame out, which nothing generates.
        """
        super().__init__()
        codec, _ = codec_and_encoder(base)
        if type(codec).gains is not Codec.gains:
            raise PartitaError(f"{type(codec).__name__} takes each frame's gain out, which a generator does not make")
        self.base = Frozen(base)
        self.backbone, self.head = backbone, head
        self.stop = nn.Linear(backbone.width, 1) if stop else None

    @property
    def codec(self) -> Codec:
        """What makes the latents, and audio of them."""
        return codec_and_encoder(self.base.module)[0]  # pyright: ignore[reportArgumentType]

    def forward(self, target: Tensor, frames: Tensor, prompts: Sequence[str], layout: Tensor) -> GeneratorOutput:
        """Predicts every step of latents from those before it.

        Args:
            target: values `(batch, dim, frames * K)` as the codec makes them, or codes for a head of codes.
            frames: `(batch,)` int64, those that count of each item.
            prompts: texts, an empty one for none.
            layout: `(batch,)` int64, of the audio, as the codec's network knows it.
        """
        ids, mask = self.backbone.read(prompts, layout)
        heard = self.head.inputs(target, self.backbone)[:, :-1]
        embeddings = torch.cat([self.backbone.embed(ids), heard], dim=1)
        states = self.backbone(embeddings, F.pad(mask, (0, heard.shape[1]), value=1))[:, ids.shape[1] - 1 :]
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
        """Latents of audio of a length, for `codec.decode`.

        An item depends on its prompts, layout and seed only, not on the others of the batch.

        Args:
            prompts: a text for each item, empty for none.
            seconds: of audio.
            seed: of every item, or one an item.
            guidance: towards the prompt, classifier-free; 1 for none.
            temperature: of the draws; smaller is safer and more alike. For a flow, the size of the noise that it starts
                from; for codes, what their logits are divided by, 0 for the likeliest.
            steps: of the flow from noise to latents; None for 10, and for codes.
            top_k: the likeliest codes that are considered; None for all, and for a flow.
            layout: of each item or one for all, of those that the codec's network knows; None for stereo where it
                does, else for its first.
            stop: end an item earlier where the recording has ended.
            audio: prompt of latents for each item, which it begins with and goes on from, as for the voice of a
                speaker; whole frames of it, and for a flow whole patches. None for none.

        Raises:
            PartitaError: there is nothing to generate, or more than the language model has positions for, it has not
                learned to stop, the codec does not know the layout, a setting is out of range or not one of the
                head, or the audio is as long as what is asked for, or not of this codec.
        """
        sampling = Sampling(guidance, temperature, steps, top_k)
        spec = self.codec.latent_spec
        check_prompts(prompts)
        if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
            raise PartitaError(f"{shown(seconds)} seconds cannot be generated; name a length")
        if audio is not None and not isinstance(audio, Latents):
            raise PartitaError(f"an audio prompt is Latents of the codec, and this is a {type(audio).__name__}")
        samples, batch = round(seconds * spec.sample_rate), len(prompts)
        if samples < 1 or not batch:
            raise PartitaError(f"{batch} prompts and {seconds} seconds: there is nothing to generate")
        if stop and self.stop is None:
            raise PartitaError("this model has not learned to stop; train it with model.stop=true")
        if audio is not None and len(audio) != batch:
            raise PartitaError(f"there are {batch} prompts and audio of {len(audio)} items; give one for each")
        layouts = self._layouts(audio.layout if layout is None and audio is not None else layout, batch)
        seeds, frames = as_seeds(seed, batch), spec.frames(samples)
        steps_ahead, positions = self.head.steps(frames), self.backbone.positions
        length = self.backbone.read(prompts, layouts)[0].shape[1] + steps_ahead
        if length > positions:
            raise PartitaError(
                f"{seconds:g} seconds are {steps_ahead} steps, {length} with the prompt; the language model has "
                f"{positions} positions: ask for less"
            )
        start = None if audio is None else self._start(audio, batch, frames)
        ended = torch.full((batch,), frames)
        with torch.autocast(self.backbone.model.device.type, enabled=False):
            rollout = self.head.rollout(frames, seeds, sampling, self.backbone, start)
            for step, states in enumerate(self._states(rollout, frames, list(prompts), layouts, sampling.guidance)):
                whole = self.head.frames(step)
                if stop and whole:
                    assert self.stop is not None
                    over = self.stop(states).squeeze(-1).cpu() > 0
                    if start is not None:
                        over &= whole >= start.frames
                    ended = torch.where(over, ended.clamp(max=whole), ended)
                    if int(ended.max()) <= whole:
                        break
        result = rollout.result()
        ended = ended.clamp(max=result.shape[-1] // spec.tokens_per_frame)
        return self._latents(result, (ended * spec.hop).clamp(max=samples), layouts)

    def _start(self, audio: Latents, batch: int, frames: int) -> Start:
        """The audio prompt as the head takes it.

        Raises:
            PartitaError: it is not of this codec, too long, or lacks what the head makes.
        """
        self.codec.check_latents(audio)
        given = audio.audio_lengths // self.codec.latent_spec.hop
        if int(given.max()) >= frames:
            raise PartitaError(
                f"the audio prompt has {int(given.max())} frames and {frames} are asked for; ask for more"
            )
        target = audio.codes if self.head.of_codes else audio.denormalize().values if audio.normalized else audio.values
        if target is None:
            kind = "codes" if self.head.of_codes else "continuous latents"
            raise PartitaError(f"this model continues {kind}, and the audio prompt has none; encode it with the codec")
        return Start(target, given)

    def _states(self, rollout: Any, frames: int, prompts: list[str], layout: Tensor, guidance: float) -> Any:
        """The state `(batch, width)` before each step; between one and the next, the step is generated."""
        from transformers import DynamicCache

        batch, twice = len(prompts), guidance != 1 and any(prompts)
        if twice:
            prompts, layout = prompts + [""] * batch, layout.repeat(2)
        ids, mask = self.backbone.read(prompts, layout)
        cache, embeddings = DynamicCache(), self.backbone.embed(ids)
        for step in range(self.head.steps(frames)):
            if step:
                mask = F.pad(mask, (0, 1), value=1)
            states = self.backbone(embeddings, mask, cache)[:, -1]
            yield states[:batch]
            heard = rollout.push(states[:batch], states[batch:] if twice else None)
            embeddings = (torch.cat([heard, heard]) if twice else heard)[:, None]

    def _layouts(self, layout: Layouts | None, batch: int) -> Tensor:
        known = self.codec.audio_spec.layouts
        if layout is None:
            layout = ChannelLayout.STEREO if ChannelLayout.STEREO in known else known[0]
        layouts = as_layouts(layout, batch)
        for item in layouts.tolist():
            if item not in known:
                names = ", ".join(one.name.lower() for one in known)
                raise PartitaError(f"the codec knows {names}; {ChannelLayout(item).name.lower()} cannot be generated")
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
        """The Configs of the parts; see `Saved`."""
        head, language_model = (getattr(part, "config", None) for part in (self.head, self.backbone))
        if not isinstance(head, GenerationHeadConfig) or not isinstance(language_model, Config):
            raise PartitaError("a generator of parts that were not built from registered Configs cannot be saved")
        self.nested()  # what could not be saved with it is refused here
        language_model = self_contained(language_model, self.backbone)
        return GeneratorConfig(head, language_model, stop=self.stop is not None), {}

    def restore(self, facts: dict[str, Any]) -> None:
        """Nothing is kept beside the Config; see `Saved`."""

    def nested(self) -> dict[str, Saved]:
        """The codec, or the representation model; see `Saved`."""
        base = self.base.module
        if not isinstance(base, Saved):
            raise PartitaError(f"{type(base).__name__} cannot be saved, and so nothing that is built on it")
        return {"codec": base}


def codec_and_encoder(base: "Codec | RepresentationModel") -> tuple[Codec, RepresentationEncoder | None]:
    """The codec itself, or the one that a representation model is built on, and the encoder of that."""
    return (base, None) if isinstance(base, Codec) else (base.codec, base.encoder)
