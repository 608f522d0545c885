"""Consistency training: a denoising decoder learns to say the same at neighboring noise levels."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, NamedTuple, Self

import torch
from partita_core import (
    Autoencoder,
    Bottleneck,
    BottleneckOutput,
    Config,
    DenoisingDecoder,
    PartitaError,
    StepOutput,
    convert_pairs,
    process_mean,
    register,
    upcast,
)
from partita_core.ranges import Finite, NonNegative, Positive, Proportion, Range
from partita_losses import draw_times, pseudo_huber, step_size
from torch import Tensor

from partita.data import Batch

from .code_usage import CodeUse
from .objective import Objective, TrainState, check_weights, weighted_sum

# Noise levels that the log tells apart: up to each of these, and above the last.
_LEVELS = (0.01, 0.1, 1.0, 10.0)
_NAMES = (*(f"below_{level:g}" for level in _LEVELS), f"above_{_LEVELS[-1]:g}")


@register("objective/consistency_training")
@dataclass(frozen=True)
class ConsistencyTrainingConfig(Config):
    """Consistency training of an autoencoder with a denoising decoder (Music2Latent2).

    From arXiv 2408.06500, per chunk and with a noise level each, as the figures of arXiv 2501.17578 show. Ours are
    `uniform_share`, `conditioning_start`, `warm_start`, `pointwise` and `max_gap`; `min_gap` is of an open
    reimplementation.

    Attributes:
        initial_step: how far the teacher's time lies before the student's at first.
        step_exponent: at the end it is `initial_step ** step_exponent`.
        level_mean: of the logarithm of the noise level; see `draw_times`.
        level_std: of the logarithm of the noise level.
        uniform_share: fraction of the times that are drawn evenly: one-step decoding starts at the largest level,
            which is hardly ever drawn otherwise.
        conditioning_start: fraction of the run, at its beginning, that learns the decoder's own losses alone, so what
            the latents tell; the denoiser, where most of the time goes, is not run. For decoders that have any.
        warm_start: fraction of what is left with the clean signal as the teacher, which is plain denoising; the steps
            shrink over the rest. 1 for all of it.
        offset: of the pseudo-Huber distance, for each element.
        pointwise: take this distance element by element, not of a chunk at once. Each then counts by its size, not by
            its square: what is rare and large does not decide how large all is made. Where features tell little, the
            deviation of a point and its magnitude are far apart, and noise would be raised to the mean power.
        autocast_denoiser: run the denoiser in the trainer's half precision, too. That is faster, but with the small
            steps of the end of training most of what student and teacher differ by is rounding then.
        min_gap: the difference of two levels, by which a distance is divided, counts as this much at least; 0 for no
            limit.
        max_gap: and as this much at most; None for no limit, which all but leaves out the large levels.
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
        """Builds the objective around `model`."""
        return ConsistencyTraining(model=model, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def example(cls) -> Self:
        """The defaults: nothing in it has a size."""
        return cls()


class _Chunks(NamedTuple):
    """What is denoised, windows of `w` chunks one after the other in the batch.

    Attributes:
        clean: `(windows, C, F, w * T)`, the representation of the target.
        features: of the decoder, each `(windows, w, ...)`.
        counted: `(windows, w)`, 1 for chunks that hold audio, 0 for those that lie in the padding.
    """

    clean: Tensor
    features: tuple[Tensor, ...]
    counted: Tensor


class ConsistencyTraining(Objective):
    """An autoencoder with a denoising decoder, trained by one loss; see `ConsistencyTrainingConfig`.

    A crop is encoded once; every run of `window` consecutive chunks in it is denoised, each chunk at a noise level of
    its own. The student sees it at the time t, the teacher at the time t - step, with the same weights, latents, noise
    and dropout, but without gradients. The distance of the two is taken chunk by chunk, in units of the deviation of
    each point where the decoder knows it, and divided by the difference of the levels. The first and the last chunk of
    a crop are like those of a file; all between see their neighbors. Chunks that lie in the padding of a short file
    do not count; the silence at the end of a last one does, since decoding has to make it, too.

    A quantizer beside the bottleneck takes part: the decoder gets its values. One that leaves part of the batch
    unrounded (`rounding_dropout`) so makes a model for continuous latents and for codes.

    Metrics, beside the bottleneck's: for each range of noise levels the loss, and the error, the distance of the
    denoised to the clean signal relative to that one's size. A range that nothing was drawn from is left out.
    """

    requires = frozenset({"audio", "audio_lengths", "layout", "target_layout"})
    phases = ("generator",)
    model: Autoencoder

    def __init__(
        self,
        *,
        model: Autoencoder,
        initial_step: float,
        step_exponent: float,
        level_mean: float,
        level_std: float,
        uniform_share: float,
        conditioning_start: float,
        warm_start: float,
        offset: float,
        pointwise: bool,
        autocast_denoiser: bool,
        min_gap: float,
        max_gap: float | None,
    ) -> None:
        """Wraps `model`.

        Raises:
            PartitaError: its decoder does not denoise, or is to begin with losses that it does not have.
        """
        super().__init__()
        if not isinstance(model.decoder, DenoisingDecoder):
            raise PartitaError(f"ConsistencyTraining needs a denoising decoder, {type(model.decoder).__name__} is none")
        self.model = model
        self.initial_step, self.step_exponent = initial_step, step_exponent
        self.level_mean, self.level_std, self.uniform_share = level_mean, level_std, uniform_share
        if conditioning_start and not model.decoder.loss_weights:
            name = type(model.decoder).__name__
            raise PartitaError(
                f"conditioning_start is {conditioning_start}, but {name} has no losses of its own; make it 0"
            )
        self.conditioning_start, self.warm_start = conditioning_start, warm_start
        self.offset, self.pointwise = offset, pointwise
        self.autocast_denoiser = autocast_denoiser
        self.min_gap, self.max_gap = min_gap, max_gap
        self.chunk = model.decoder.hop * model.decoder.frames_per_chunk
        self.crop_multiple = model.decoder.window * self.chunk
        coder = model.bottleneck if model.quantizer is None else model.quantizer
        self.code_use = CodeUse(coder.codebook_sizes)

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """The one phase; see `Objective`."""
        hidden, parts = self._encode(batch)
        metrics = {name: value for _, output in parts for name, value in output.metrics.items()}
        metrics |= self.code_use(parts[-1][1].codes, state.step)
        chunks = self._chunks(hidden, batch)
        if state.progress < self.conditioning_start:
            losses, levels, total = {}, {}, self._nothing()
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
        """All of the model's parameters."""
        return [{"params": [parameter for parameter in self.model.parameters() if parameter.requires_grad]}]

    def times(self, uniform: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The student's times and the teacher's, by even draws from [0, 1) and the progress of the training."""
        student = draw_times(
            uniform,
            self._decoder.schedule,
            mean=self.level_mean,
            std=self.level_std,
            uniform_share=self.uniform_share,
        )
        progress = _after(progress, self.conditioning_start)
        if progress < self.warm_start:
            return student, torch.zeros_like(student)
        progress = _after(progress, self.warm_start)
        step = step_size(progress, initial=self.initial_step, exponent=self.step_exponent)
        return student, (student - step).clamp_min(0)

    @property
    def _decoder(self) -> DenoisingDecoder:
        return self.model.decoder  # pyright: ignore[reportReturnType]

    def _encode(self, batch: Batch) -> tuple[Tensor, list[tuple[Bottleneck, BottleneckOutput]]]:
        """What the decoder takes, and what each part between it and the encoder put out."""
        audio, bottleneck, quantizer = batch["audio"], self.model.bottleneck, self.model.quantizer
        tokens = self.model.latent_spec.tokens(batch["audio_lengths"])
        parts = [(bottleneck, bottleneck(self.model.encoder(audio, batch["layout"]), lengths=tokens))]
        if quantizer is not None:
            parts.append((quantizer, quantizer(parts[0][1].values, lengths=tokens)))
        return bottleneck.expand(parts[-1][1].values).to(audio.dtype), parts

    def _chunks(self, hidden: Tensor, batch: Batch) -> _Chunks:
        """Every run of `window` consecutive chunks."""
        decoder, audio = self._decoder, batch["audio"]
        features = decoder.condition(hidden, batch["target_layout"])
        with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
            clean = decoder.representation(convert_pairs(audio, batch["layout"], batch["target_layout"]))
        starts = torch.arange(0, audio.shape[-1], self.chunk, device=audio.device)
        counted = (starts < batch["audio_lengths"].to(audio.device)[:, None]).to(audio.dtype)
        window, frames = decoder.window, self.chunk // decoder.representation.hop
        return _Chunks(
            _runs(clean, window * frames, frames, dim=-1),
            tuple(_runs(feature, window, 1, dim=1) for feature in features),
            _runs(counted, window, 1, dim=1),
        )

    def _consistency(self, chunks: _Chunks, state: TrainState) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and metrics by noise level."""
        clean, features, counted = chunks
        schedule = self._decoder.schedule
        # On the CPU, so that they are the same on every device.
        uniform = torch.rand(counted.shape, dtype=torch.float64)
        time, earlier = self.times(uniform, state.progress)
        sigma, before = schedule.sigma(time), schedule.sigma(earlier)
        student, teacher = self.denoised(chunks, time, earlier)
        with torch.autocast(clean.device.type, enabled=False):
            student, teacher, clean = (_items(x, counted) for x in (student, teacher, clean))
            deviation = self._decoder.deviation(features)
            unit = 1.0 if deviation is None else _items(deviation, counted)
            distance = self._distance(student / unit, teacher / unit)
            tiny = torch.finfo(distance.dtype).tiny
            gap = (sigma - before).to(distance).clamp(max(self.min_gap, tiny), self.max_gap).flatten()
            counted = counted.to(distance).flatten()
            by_chunk = distance / gap
            loss = process_mean((by_chunk * counted).sum(), counted.sum())
            return loss, _by_level(by_chunk.detach(), student.detach(), clean, sigma.flatten(), counted)

    def denoised(self, chunks: _Chunks, time: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks as the student denoises them at `time`, and as its teacher does at an `earlier` one, with one noise.

        Late in training the two differ by less than a half type resolves, and that difference is all the loss sees. So
        both run without autocast, on features that are the same for both, unless `autocast_denoiser` says otherwise.
        """
        clean, features, _ = chunks
        noise = torch.randn_like(clean)
        device = clean.device.type
        autocast = self.autocast_denoiser and torch.is_autocast_enabled(device)

        def at(moment: Tensor) -> Tensor:
            level = self._decoder.schedule.sigma(moment).to(clean)
            frames = clean.shape[-1] // level.shape[1]
            noisy = clean + level.repeat_interleave(frames, 1)[:, None, None] * noise
            with torch.autocast(device, enabled=autocast):
                return self._decoder(noisy, level, features)

        # The student goes first: what autocast casts under no_grad and keeps would take the gradients from it.
        with _forked(clean.device):
            student = at(time)
        with torch.no_grad():
            # At time 0 a denoiser returns its input, which is clean: in the warm start there is no teacher to run.
            teacher = at(earlier) if earlier.any() else clean
        return student, teacher

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """`(chunks,)`. Where all points differ alike both ways give the same: that, times the root of their number."""
        if not self.pointwise:
            return pseudo_huber(student, teacher, offset=self.offset)
        by_point = pseudo_huber(student.reshape(-1, 1), teacher.reshape(-1, 1), offset=self.offset)
        by_point = by_point.unflatten(0, (len(student), -1))
        return by_point.mean(1) * by_point.shape[1] ** 0.5

    def _nothing(self) -> Tensor:
        """Zero, of every parameter: one without a gradient stops distributed training."""
        return sum((parameter.sum() * 0.0 for parameter in self.model.decoder.parameters()), torch.zeros(()))

    def _decoder_losses(self, chunks: _Chunks) -> dict[str, Tensor]:
        """What the decoder learns beside denoising, over the chunks that count."""
        terms = self._decoder.losses(chunks.features, chunks.clean)
        count = chunks.counted.sum()
        return {name: process_mean((term * chunks.counted).sum(), count) for name, term in terms.items()}


def _after(progress: float, start: float) -> float:
    """Progress over what is left after the fraction `start`."""
    return (progress - start) / (1 - start) if start < 1 else 1.0


def _runs(x: Tensor, size: int, hop: int, *, dim: int) -> Tensor:
    """All runs of `size` along `dim`, `hop` after each other, stacked in the batch."""
    return torch.cat([x.narrow(dim, start, size) for start in range(0, x.shape[dim] - size + 1, hop)])


def _items(x: Tensor, counted: Tensor) -> Tensor:
    """Windows `(windows, C, F, w * T)` as single chunks `(windows * w, C, F, T)`, at least float32."""
    return upcast(x).unflatten(-1, (counted.shape[1], -1)).movedim(-2, 1).flatten(0, 1)


def _forked(device: torch.device) -> Any:
    """Within it random numbers are drawn as usual; afterwards the same are to come again."""
    return torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type)


@torch.no_grad()
def _by_level(losses: Tensor, denoised: Tensor, clean: Tensor, sigma: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Mean loss and relative error of the chunks in each range of noise levels that there are any in."""
    places = torch.bucketize(sigma, torch.tensor(_LEVELS, dtype=sigma.dtype))
    members = torch.nn.functional.one_hot(places, len(_NAMES)).T.to(counted) * counted
    count = members.sum(1)
    error, power = (x.flatten(1).square().sum(1) for x in (denoised - clean, clean))
    loss = (members @ losses) / count
    relative = ((members @ error) / (members @ power).clamp_min(torch.finfo(power.dtype).tiny)).sqrt()
    found = [i for i, drawn in enumerate((count > 0).tolist()) if drawn]
    figures = {f"loss_sigma_{_NAMES[i]}": loss[i] for i in found}
    return figures | {f"error_sigma_{_NAMES[i]}": relative[i] for i in found}
