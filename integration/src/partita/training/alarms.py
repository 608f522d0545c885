"""Alarms on metrics of training, such as saturation or dead codes, and of validation, each with a remedy."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from partita_core.ranges import Finite, Proportion, Ranged, Steps

# Number of log lines that a metric is averaged over, and that must exist before it is checked.
_LINES = 10
# Metrics of validation are checked from this progress and this step on.
_VALIDATION_PROGRESS, _VALIDATION_STEP = 0.5, 100


@dataclass(frozen=True)
class AlarmConfig(Ranged):
    """Thresholds of the alarms; None turns one off.

    Attributes:
        start_step: first step that is checked; before it, metrics have not settled, and the usage of codes is counted
            over a thousand steps.
        max_saturation: maximum fraction of bounded latents beyond 0.95. Uniformly distributed latents are at 0.05;
            from 0.2 on, the encoder presses against the bound.
        stop_saturation: fraction at which the run stops: latents that are all at plus or minus one, which losses hide
            for long, do not recover.
        min_code_usage: minimum fraction of the codes of a level in use. Healthy levels are near 1, collapsed ones below
            0.1; the scalar levels of FSQ, whose codes cannot die, may be at 0.5.
        min_channel_std: minimum standard deviation of a latent channel, relative to the RMS of all. At -40 dB it
            carries no information for the decoder, and a generator produces noise for it.
        min_discriminator_loss: minimum loss of the discriminators as a fraction of that at chance (hinge 2, least
            squares 0.5): 0.5 to 0.95 is balanced, and near 0 they separate real from fake by a margin, and train the
            model no more.
        min_si_sdr: minimum SI-SDR of validation in dB, in the second half of the run. Noise of the right spectrum is
            below -20, silence at -100.
        max_frame_buzz: maximum of `metric/frame_buzz` of validation, in the second half of the run.
    """

    start_step: Steps = 1000
    max_saturation: Proportion | None = 0.2
    stop_saturation: Proportion | None = 0.5
    min_code_usage: Proportion | None = 0.25
    min_channel_std: Proportion | None = 0.01
    min_discriminator_loss: Proportion | None = 0.1
    min_si_sdr: Finite | None = -20.0
    max_frame_buzz: Proportion | None = 0.05


class Alarm(NamedTuple):
    """Alarm: a metric beyond its threshold.

    Attributes:
        kind: field of `AlarmConfig` whose threshold was passed, with the level for codes.
        text: one line with the value, the threshold and a remedy.
        stops: True if the run has to stop.
    """

    kind: str
    text: str
    stops: bool = False


class MetricAlarms:
    """Running averages of logged metrics, and the alarms that they raise.

    It processes log lines in the main process, so it costs nothing between them.
    """

    def __init__(
        self,
        config: AlarmConfig,
        averages: Mapping[str, tuple[float, int]] | None = None,
        *,
        loss_at_chance: float | None = None,
    ) -> None:
        """Start, or continue from averages.

        Args:
            config: thresholds.
            averages: means and numbers of lines by metric, from a checkpoint.
            loss_at_chance: `Objective.loss_at_chance`; None if the discriminators' loss is not checked.
        """
        self.config, self.loss_at_chance = config, loss_at_chance
        self.averages = dict(averages or {})
        self._active: set[str] = set()

    def check(self, step: int, values: Mapping[str, float]) -> list[Alarm]:
        """Add a line of the log, and return the alarms that were not active at the line before."""
        for name, value in values.items():
            if _WATCHED.search(name):
                average, count = self.averages.get(name, (value, 0))
                self.averages[name] = (average + (value - average) / min(count + 1, _LINES), count + 1)
        if step < self.config.start_step:
            return []
        settled = {name: average for name, (average, count) in self.averages.items() if count >= _LINES}
        found = list(self._alarms(settled))
        new = [alarm for alarm in found if alarm.kind not in self._active]
        self._active = {alarm.kind for alarm in found}
        return new

    def _alarms(self, averages: Mapping[str, float]) -> Iterator[Alarm]:
        min_usage, min_loss = self.config.min_code_usage, self.config.min_discriminator_loss
        chance = self.loss_at_chance
        for name, value in averages.items():
            last = name.split("/")[-1]
            if last == "saturated_fraction":
                yield from self._saturation(value)
            elif last.startswith("in_use_") and min_usage is not None and value < min_usage:
                level = last.removeprefix("in_use_")
                yield Alarm(
                    f"min_code_usage {level}",
                    f"dead codes: {value:.1%} of the codes of level {level} were used in the last thousand steps, "
                    f"below {min_usage:.0%}; give each step more tokens (data.batch_size, data.crop_seconds), "
                    "initialize the quantizer from more latents (objective.start_tokens), or use a smaller "
                    "codebook_size",
                )
            elif name == "loss/discriminator" and min_loss is not None and chance and value < min_loss * chance:
                yield Alarm(
                    "min_discriminator_loss",
                    f"the discriminator dominates: its loss averages {value:.2g}, below {min_loss * chance:g}, "
                    f"{min_loss:.0%} of its value at chance, {chance:g}; lower trainer.optimizers.discriminator.lr, or "
                    "the weight of the loss 'adversarial'",
                )
        yield from self._collapse(averages)

    def check_validation(self, step: int, progress: float, metrics: Mapping[str, float]) -> Iterator[Alarm]:
        """Alarms of an evaluation, each time that a threshold is passed, so that they do not depend on earlier ones.

        Args:
            step: number of steps taken.
            progress: fraction of the run that is done.
            metrics: metrics of the evaluation by name.
        """
        if progress < _VALIDATION_PROGRESS or step < _VALIDATION_STEP:
            return
        ratio, min_ratio = metrics.get("si_sdr"), self.config.min_si_sdr
        if ratio is not None and min_ratio is not None and ratio < min_ratio:
            yield Alarm(
                "min_si_sdr",
                f"the SI-SDR of validation is {ratio:.1f} dB, that of noise (below {min_ratio:g}): the phase of the "
                "output is random; add a loss that depends on phase (objective.losses: companded_stft, relative_l1), "
                "train longer, or set trainer.alarms.min_si_sdr=none for a decoder that generates phases",
            )
        buzz, max_buzz = metrics.get("frame_buzz"), self.config.max_frame_buzz
        if buzz is not None and max_buzz is not None and buzz > max_buzz:
            yield Alarm(
                "max_frame_buzz",
                f"the decoder repeats its upper spectrum every latent frame: frame_buzz is {buzz:.2f}, above "
                f"{max_buzz:g}; give the decoder noise, or train with discriminators that cover several frames",
            )

    def _collapse(self, averages: Mapping[str, float]) -> Iterator[Alarm]:
        smallest, rms = (averages.get(f"metric/{name}") for name in ("channel_std_min", "latent_rms"))
        limit = self.config.min_channel_std
        if limit is not None and smallest is not None and rms is not None and smallest < limit * rms:
            yield Alarm(
                "min_channel_std",
                f"a latent channel has collapsed: its standard deviation is {smallest:.2g}, below {limit:g} times the "
                f"RMS of all, {rms:.2g}; weaken the loss or the noise of the bottleneck, or use fewer latent channels",
            )

    def _saturation(self, value: float) -> Iterator[Alarm]:
        remedy = "lower the learning rate, or give the bottleneck a gain or a hinge_weight"
        for kind, limit, stops in (
            ("stop_saturation", self.config.stop_saturation, True),
            ("max_saturation", self.config.max_saturation, False),
        ):
            if limit is not None and value > limit:
                effect = f"and the run stops at {limit:.0%}" if stops else f"above {limit:.0%}"
                yield Alarm(kind, f"the bottleneck saturates: {value:.0%} of its values, {effect}; {remedy}", stops)


_WATCHED = re.compile(r"/(saturated_fraction|in_use_\d+|channel_std_min|latent_rms)$|^loss/discriminator$")
