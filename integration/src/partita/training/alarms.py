"""Figures that go wrong slowly: what a run's log shows of them is said once, with what to do."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from partita_core.ranges import NonNegative, Proportion, Ranged, Steps

# Lines of the log that a figure is averaged over, and that there must be before it is judged.
_LINES = 10


@dataclass(frozen=True)
class WatchConfig(Ranged):
    """From where on a figure of the log is worth a warning; None never warns of it.

    Attributes:
        after: steps before which nothing is judged: nothing has settled, and the use of codes is counted over a
            thousand steps.
        saturated: fraction of bounded latents beyond 0.95. Evenly spread ones are at 0.05; from 0.2 on the encoder
            leans on the bound.
        saturated_stop: fraction at which the run stops: latents that are all plus or minus one, which losses hide
            for long, do not come back.
        codes: fraction of a level's codes in use, below which bits are paid for and not used. Healthy levels are near
            1, collapsed ones below 0.1; the scalar levels of FSQ, of which none can die, may be at a half.
        channel: the smallest standard deviation of a latent channel relative to the RMS of all, 40 dB below which it
            tells the decoder nothing, and a generator makes noise of it.
        discriminator: the discriminators' hinge loss: 2 is chance, about 1 to 1.9 a fair fight, and near 0 they know
            everything by a margin and teach the model nothing.
    """

    after: Steps = 1000
    saturated: Proportion | None = 0.2
    saturated_stop: Proportion | None = 0.5
    codes: Proportion | None = 0.25
    channel: Proportion | None = 0.01
    discriminator: NonNegative | None = 0.2


class Alarm(NamedTuple):
    """What is wrong.

    Attributes:
        kind: the field of `WatchConfig` that says so, and which of several figures.
        text: one line, with what to do.
        stops: whether the run ends.
    """

    kind: str
    text: str
    stops: bool = False


class Watch:
    """Averages the figures of the log, and says what is wrong when it begins to be.

    It sees what is logged, in the main process; so it costs nothing, and looks no more often than the log is written.
    """

    def __init__(self, config: WatchConfig, averages: Mapping[str, tuple[float, int]] | None = None) -> None:
        """Starts, or goes on from the `averages` of a checkpoint."""
        self.config = config
        self.averages = dict(averages or {})
        self._on: set[str] = set()

    def look(self, step: int, values: Mapping[str, float]) -> list[Alarm]:
        """A line of the log; returns what was not wrong, or not known to be, at the line before."""
        for name, value in values.items():
            if _WATCHED.search(name):
                average, count = self.averages.get(name, (value, 0))
                self.averages[name] = (average + (value - average) / min(count + 1, _LINES), count + 1)
        if step < self.config.after:
            return []
        known = {name: average for name, (average, count) in self.averages.items() if count >= _LINES}
        found = list(self._alarms(known))
        new = [alarm for alarm in found if alarm.kind not in self._on]
        self._on = {alarm.kind for alarm in found}
        return new

    def _alarms(self, known: Mapping[str, float]) -> Iterator[Alarm]:
        config = self.config
        for name, value in known.items():
            last = name.split("/")[-1]
            if last == "saturated_fraction":
                yield from self._saturation(value)
            elif last.startswith("in_use_") and config.codes is not None and value < config.codes:
                level = last.removeprefix("in_use_")
                yield Alarm(
                    f"codes {level}",
                    f"dead codes: {value:.1%} of those of level {level} were in use within a thousand steps, below "
                    f"{config.codes:.0%}; give each step more tokens (data.batch_size, data.crop_seconds), start the "
                    "quantizer on more latents (objective.start_tokens), or give it a smaller codebook_size",
                )
            elif name == "loss/discriminator" and config.discriminator is not None and value < config.discriminator:
                yield Alarm(
                    "discriminator",
                    f"the discriminator dominates: its loss is {value:.2g} of late, below {config.discriminator:g} "
                    "(chance is 2); lower trainer.optimizers.discriminator.lr, or the weight of the loss 'adversarial'",
                )
        smallest, rms = (known.get(f"metric/{name}") for name in ("channel_std_min", "latent_rms"))
        if config.channel is not None and smallest is not None and rms is not None and smallest < config.channel * rms:
            yield Alarm(
                "channel",
                f"a latent dimension has collapsed: the standard deviation of one is {smallest:.2g}, the RMS of all "
                f"{rms:.2g}, and {config.channel:g} of it is the least; weaken the bottleneck's loss or noise, or give "
                "the model fewer latent dimensions",
            )

    def _saturation(self, value: float) -> Iterator[Alarm]:
        advice = "lower the learning rate, or give the bottleneck a gain or a hinge_weight"
        for kind, limit, stops in (
            ("saturated_stop", self.config.saturated_stop, True),
            ("saturated", self.config.saturated, False),
        ):
            if limit is not None and value > limit:
                does = f"and the run stops at {limit:.0%}" if stops else f"above {limit:.0%}"
                says = f"the bottleneck saturates: {value:.0%} of its values of late, {does}; {advice}"
                yield Alarm(kind, says, stops)


_WATCHED = re.compile(r"/(saturated_fraction|in_use_\d+|channel_std_min|latent_rms)$|^loss/discriminator$")
