"""What stands between a language model's states and latents: the abstract head, and how it is rolled out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from partita_core import Codec, Config, LatentNormalizer, LatentSpec, RepresentationEncoder
from partita_core.ranges import Count, NonNegative, Ranged
from torch import Tensor, nn

from .backbone import Backbone


class HeadOutput(NamedTuple):
    """What a head makes of the states of a batch whose latents are known.

    Attributes:
        loss: a scalar, at least float32.
        metrics: detached scalars for the log.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class Sampling(Ranged):
    """How latents are drawn; see `Generator.generate`.

    Attributes:
        guidance: towards the prompt.
        temperature: of the draws.
        steps: of a flow.
        top_k: codes that are considered.
    """

    guidance: NonNegative
    temperature: NonNegative
    steps: Count | None
    top_k: Count | None


class Start(NamedTuple):
    """Latents that are given, not drawn, at the start of each item.

    Attributes:
        target: values as the codec makes them or codes, `(batch, ..., frames * K)`.
        frames: `(batch,)` int64, those of each item.
    """

    target: Tensor
    frames: Tensor


class Rollout(ABC):
    """Latents as they are generated, step by step of the language model."""

    @abstractmethod
    def push(self, states: Tensor, unconditional: Tensor | None) -> Tensor:
        """Draws what the states `(batch, width)` announce; returns how the language model hears it, as much.

        Without guidance there are no states of an empty prompt.
        """

    @abstractmethod
    def result(self) -> Tensor:
        """All that was drawn: values `(batch, dim, frames * K)` as `Latents` hold them, or codes."""


class GenerationHead(nn.Module, ABC):
    """Predicts latents, or codes, of the states of a language model, and tells it what there is by now.

    A step of the language model is a patch of frames, a code, or a code of every level: the head's own choice.

    Attributes:
        of_codes: it predicts codes, not values.
    """

    of_codes: bool

    @abstractmethod
    def steps(self, frames: Any) -> Any:
        """Steps that `frames` frames take: of a count, or of a tensor of counts."""

    @abstractmethod
    def frames(self, steps: int) -> int | None:
        """Frames that `steps` steps make where they end with a whole one, else None."""

    @abstractmethod
    def inputs(self, target: Tensor, backbone: Backbone) -> Tensor:
        """How the language model hears latents: `(batch, steps, width)`."""

    @abstractmethod
    def forward(self, states: Tensor, target: Tensor, frames: Tensor, backbone: Backbone) -> HeadOutput:
        """The error of what is predicted at each step, from the state before it.

        Args:
            states: `(batch, steps, width)`.
            target: values as the codec makes them or codes, `(batch, ..., frames * K)`.
            frames: `(batch,)` int64, those that count of each item.
            backbone: whose states they are.
        """

    @abstractmethod
    def rollout(
        self, frames: int, seeds: Tensor, sampling: Sampling, backbone: Backbone, start: Start | None = None
    ) -> Rollout:
        """Begins to generate `frames` frames for each of the seeds `(batch,)`, those of `start` as they are given.

        Raises:
            PartitaError: `sampling` names what this head does not have.
        """


class GenerationHeadConfig(Config):
    """The configuration of a head."""

    @abstractmethod
    def own_ids(self, spec: LatentSpec) -> int:
        """Ids that it needs in the language model's vocabulary; 0 for a model without an output layer.

        Raises:
            PartitaError: it cannot be built for such latents.
        """

    @abstractmethod
    def build(
        self, *, codec: Codec, encoder: RepresentationEncoder | None, scale: LatentNormalizer, states: int
    ) -> GenerationHead:
        """Builds it for the latents of a codec.

        Args:
            codec: whose latents are generated.
            encoder: how the language model hears them; None to hear them as they are.
            scale: of the latents as they are generated.
            states: width of the language model's states.

        Raises:
            PartitaError: the encoder does not suit the head.
        """
