"""Consistency training: a denoising decoder is trained to give the same output at adjacent noise levels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from partita_core import (
    Autoencoder,
    Bottleneck,
    BottleneckOutput,
    DenoisingDecoder,
    PartitaError,
    StepOutput,
    process_mean,
    register,
    upcast,
)
from partita_core.ranges import Finite, NonNegative, Positive, Proportion, Range
from partita_losses import draw_times, pseudo_huber, step_size
from torch import Tensor

from partita.data import Batch

from .code_usage import CodeUsage
from .consistency_chunks import ChunkWindows, chunk_windows, single_chunks
from .data_fit import fit_parts, hold_linear_numbers
from .noise_level_metrics import noise_level_metrics
from .objective import Objective, ObjectiveConfig, TrainState, check_weights, trainable_group, weighted_sum


@register("objective/consistency_training")
@dataclass(frozen=True)
class ConsistencyTrainingConfig(ObjectiveConfig):
    """Consistency training of an autoencoder with a denoising decoder (Music2Latent2).

    From arXiv 2408.06500, per chunk and with a noise level per chunk, as the figures of arXiv 2501.17578 show. Ours are
    `uniform_share`, `conditioning_start`, `warm_start`, `pointwise` and `max_gap`; `min_gap` is from an open
    reimplementation.

    Attributes:
        initial_step: distance in time between student and teacher at the start of the run.
        step_exponent: the distance at the end of the run is `initial_step ** step_exponent`.
        level_mean: mean of the logarithm of the noise level; see `draw_times`.
        level_std: standard deviation of the logarithm of the noise level.
        uniform_share: fraction of the times that are drawn uniformly. One-step decoding starts at the largest level,
            which is rarely drawn otherwise.
        conditioning_start: fraction of the run, at its beginning, that trains only the decoder's own losses, that is,
            the conditioning on the latents; the expensive denoiser is not run. For decoders that have such losses. The
            numbers of a linear path are not corrected during this time.
        warm_start: fraction of the rest whose teacher is the clean signal, which is plain denoising; the step size
            decays over what follows. 1 for plain denoising throughout.
        offset: offset of the pseudo-Huber distance per element.
        pointwise: average the distance over elements instead of taking the norm of a chunk, so that each element counts
            by its magnitude, not its square. With uninformative features, rare large elements would otherwise raise
            the noise floor to the mean power.
        autocast_denoiser: run the denoiser in the half precision of the trainer as well. Faster, but with the small
            steps late in training, rounding dominates the difference between student and teacher.
        min_gap: minimum of the difference of noise levels that a distance is divided by; 0 for no limit.
        max_gap: maximum of that difference; None for no limit, which gives large levels almost no weight.
    """

    initial_step: Annotated[float, Range(0, 1, open_low=True)] = 0.1
    step_exponent: Positive = 3.0
    level_mean: Finite = -1.1
    level_std: Positive = 2.0
    uniform_share: Proportion = 0.0
    conditioning_start: Proportion = 0.0
    warm_start: Proportion = 0.0
    offset: Positive = 0.00054
    pointwise: bool = False
    autocast_denoiser: bool = False
    min_gap: NonNegative = 1e-3
    max_gap: Positive | None = None

    def build(self, *, model: Autoencoder) -> "ConsistencyTraining":
        """Build the objective of `model`."""
        return ConsistencyTraining(model, self)

    @classmethod
    def example(cls) -> Self:
        """The defaults, which have no sizes."""
        return cls()


class ConsistencyTraining(Objective):
    """An autoencoder with a denoising decoder, trained by one loss; see `ConsistencyTrainingConfig`.

    A crop is encoded once; every window of `window` consecutive chunks is denoised, with a noise level per chunk. The
    student denoises at time t and the teacher at time t - step, with the same weights, latents, noise and dropout, but
    without gradients. Their distance is computed per chunk, in units of the deviation of each point if the decoder
    provides it, and divided by the difference of the noise levels. The first and last chunk of a crop have one
    neighbor, as in a file; all others have two. Chunks of padding do not count; silence at the end of the last chunk
    does, because decoding has to produce it too.

    A quantizer attached to the model is trained as well: the decoder is given its values. One that leaves a part of
    the batch unrounded (`rounding_dropout`) yields a model of both continuous latents and codes.

    Metrics, besides those of the bottleneck: loss and relative error of the denoised signal by range of noise levels.
    """

    requires = frozenset({"audio", "audio_lengths", "layout", "target_layout"})
    phases = ("generator",)
    model: Autoencoder

    def __init__(self, model: Autoencoder, config: ConsistencyTrainingConfig) -> None:
        """Wrap `model`.

        Raises:
            PartitaError: the decoder does not denoise, or lacks the losses that `conditioning_start` needs.
        """
        super().__init__()
        decoder, name = model.decoder, type(model.decoder).__name__
        if not isinstance(decoder, DenoisingDecoder):
            raise PartitaError(f"ConsistencyTraining needs a denoising decoder; {name} is not one")
        if config.conditioning_start and not decoder.loss_weights:
            raise PartitaError(
                f"conditioning_start is {config.conditioning_start}, but {name} has no auxiliary losses; set it to 0"
            )
        self.model, self.config = model, config
        self.crop_multiple = decoder.window * decoder.hop * decoder.frames_per_chunk
        coder = model.bottleneck if model.quantizer is None else model.quantizer
        self.code_usage = CodeUsage(coder.codebook_sizes)

    def initialize(self, batches: Iterable[Batch], *, seconds: float | None = None) -> str:
        """Fit the parts that are measured on data; see `Objective`."""
        return fit_parts(self.model, batches, seconds=seconds)

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """Compute the only phase; see `Objective`."""
        conditioning = state.progress < self.config.conditioning_start
        # The losses of the decoder alone would pull the numbers away from those of the linear codec.
        hold_linear_numbers(self.model, held=conditioning)
        hidden, parts = self._encode(batch)
        metrics = {name: value for _, output in parts for name, value in output.metrics.items()}
        metrics |= self.code_usage(parts[-1][1].codes, state.step)
        chunks = chunk_windows(self._decoder, hidden, batch)
        if conditioning:
            losses, levels, total = {}, {}, self._zero()
        else:
            loss, levels = self._consistency(chunks, state)
            losses, total = {"consistency": loss}, loss
        own = [(part.loss_weights, output.losses) for part, output in parts]
        for weights, terms in (*own, (self._decoder.loss_weights, self._decoder_losses(chunks))):
            check_weights(set(terms), weights)
            if terms:
                losses |= terms
                total = total + weighted_sum(terms, weights)
        losses = {name: upcast(term.detach()) for name, term in losses.items()}
        return StepOutput(total, losses, metrics | levels, None)

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Parameters of the model."""
        return trainable_group(self.model)

    def times(self, uniform: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Times of student and teacher.

        Args:
            uniform: uniform draws from [0, 1).
            progress: progress of the run, from 0 to 1.
        """
        config = self.config
        student = draw_times(
            uniform,
            self._decoder.schedule,
            mean=config.level_mean,
            std=config.level_std,
            uniform_share=config.uniform_share,
        )
        progress = _progress_after(config.conditioning_start, progress)
        if progress < config.warm_start:
            return student, torch.zeros_like(student)
        progress = _progress_after(config.warm_start, progress)
        step = step_size(progress, initial=config.initial_step, exponent=config.step_exponent)
        return student, (student - step).clamp_min(0)

    def denoise_pair(self, chunks: ChunkWindows, time: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        """Output of the student at `time` and of the teacher at an `earlier` time, with the same noise.

        Late in training the two differ by less than the resolution of half precision, and the loss depends on that
        difference alone. So both run without autocast, on the same features, unless `autocast_denoiser` is set.
        """
        clean, features, _ = chunks
        noise = torch.randn_like(clean)
        device = clean.device.type
        autocast = self.config.autocast_denoiser and torch.is_autocast_enabled(device)

        def denoise(at: Tensor) -> Tensor:
            level = self._decoder.schedule.sigma(at).to(clean)
            frames = clean.shape[-1] // level.shape[1]
            noisy = clean + level.repeat_interleave(frames, 1)[:, None, None] * noise
            with torch.autocast(device, enabled=autocast):
                return self._decoder(noisy, level, features)

        # The student runs first: weights that autocast casts and caches under no_grad would cut its gradients.
        with _random_state_kept(clean.device):
            student = denoise(time)
        with torch.no_grad():
            # A denoiser returns its input at time 0, which is clean: the warm start needs no teacher.
            teacher = denoise(earlier) if earlier.any() else clean
        return student, teacher

    @property
    def _decoder(self) -> DenoisingDecoder:
        return self.model.decoder  # pyright: ignore[reportReturnType]

    def _encode(self, batch: Batch) -> tuple[Tensor, list[tuple[Bottleneck, BottleneckOutput]]]:
        """Input of the decoder, and the output of each part between encoder and decoder."""
        audio, bottleneck, quantizer = batch["audio"], self.model.bottleneck, self.model.quantizer
        tokens = self.model.latent_spec.tokens(batch["audio_lengths"])
        parts = [(bottleneck, bottleneck(self.model.encoder(audio, batch["layout"]), lengths=tokens))]
        if quantizer is not None:
            parts.append((quantizer, quantizer(parts[0][1].values, lengths=tokens)))
        return bottleneck.expand(parts[-1][1].values).to(audio.dtype), parts

    def _consistency(self, chunks: ChunkWindows, state: TrainState) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and metrics by noise level."""
        clean, features, counted = chunks
        schedule = self._decoder.schedule
        # Drawn on the CPU to be the same on every device.
        uniform = torch.rand(counted.shape, dtype=torch.float64)
        time, earlier = self.times(uniform, state.progress)
        sigma, before = schedule.sigma(time), schedule.sigma(earlier)
        student, teacher = self.denoise_pair(chunks, time, earlier)
        with torch.autocast(clean.device.type, enabled=False):
            student, teacher, clean = (single_chunks(x, counted) for x in (student, teacher, clean))
            deviation = self._decoder.deviation(features)
            unit = 1.0 if deviation is None else single_chunks(deviation, counted)
            distance = self._distance(student / unit, teacher / unit)
            tiny = torch.finfo(distance.dtype).tiny
            gap = (sigma - before).to(distance)
            gap = gap.clamp(max(self.config.min_gap, tiny), self.config.max_gap).flatten()
            counted = counted.to(distance).flatten()
            by_chunk = distance / gap
            loss = process_mean((by_chunk * counted).sum(), counted.sum())
            return loss, noise_level_metrics(by_chunk.detach(), student.detach(), clean, sigma.flatten(), counted)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """`(chunks,)` distances; the pointwise one is scaled to equal the other if all elements differ alike."""
        if not self.config.pointwise:
            return pseudo_huber(student, teacher, offset=self.config.offset)
        by_point = pseudo_huber(student.reshape(-1, 1), teacher.reshape(-1, 1), offset=self.config.offset)
        by_point = by_point.unflatten(0, (len(student), -1))
        return by_point.mean(1) * by_point.shape[1] ** 0.5

    def _decoder_losses(self, chunks: ChunkWindows) -> dict[str, Tensor]:
        """Losses of the decoder besides denoising, averaged over the counted chunks."""
        terms = self._decoder.losses(chunks.features, chunks.clean)
        count = chunks.counted.sum()
        return {name: process_mean((term * chunks.counted).sum(), count) for name, term in terms.items()}

    def _zero(self) -> Tensor:
        """Zero that depends on every parameter of the decoder: distributed training needs a gradient for each."""
        return sum((parameter.sum() * 0.0 for parameter in self.model.decoder.parameters()), torch.zeros(()))


def _progress_after(start: float, progress: float) -> float:
    """Progress over the part of the run after the fraction `start`."""
    return (progress - start) / (1 - start) if start < 1 else 1.0


def _random_state_kept(device: torch.device) -> Any:
    """A context whose random draws repeat after it."""
    return torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type)
