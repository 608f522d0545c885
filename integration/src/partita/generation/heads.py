"""The role of generation heads, between a language model's states and latents, and the interface of sampling."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from partita_core import Codec, Config, LatentNormalizer, LatentSpec, RepresentationEncoder
from partita_core.ranges import Count, NonNegative, Ranged
from torch import Tensor, nn

from .backbone import Backbone


class HeadOutput(NamedTuple):
    """Loss of a head for a batch of known latents.

    Attributes:
        loss: a scalar, at least float32.
        metrics: detached scalars for the log.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class Sampling(Ranged):
    """Settings of sampling; see `Generator.generate`.

    Attributes:
        guidance: scale of classifier-free guidance towards the prompt.
        temperature: sampling temperature.
        steps: integration steps of a flow.
        top_k: number of most likely codes that are considered.
    """

    guidance: NonNegative
    temperature: NonNegative
    steps: Count | None
    top_k: Count | None


class Start(NamedTuple):
    """Given latents at the start of each item.

    Attributes:
        target: codec values or codes, `(batch, ..., frames * K)`.
        frames: number of given frames per item, `(batch,)` int64.
    """

    target: Tensor
    frames: Tensor


class Rollout(ABC):
    """State of sampling: the latents so far, one step of the language model at a time."""

    @abstractmethod
    def push(self, states: Tensor, unconditional: Tensor | None) -> Tensor:
        """Sample the next step, and return its input embedding for the language model.

        Args:
            states: states before the step, `(batch, width)`.
            unconditional: states for an empty prompt, `(batch, width)`; None without guidance.

        Returns:
            `(batch, width)`.
        """

    @abstractmethod
    def result(self) -> Tensor:
        """All sampled latents: values `(batch, dim, frames * K)` as in `Latents`, or codes."""


class GenerationHead(nn.Module, ABC):
    """Prediction of latents or codes from a language model's states, and their embedding as its inputs.

    A step of the language model is a patch of frames, one code, or one code per level, as the head defines it.

    Attributes:
        of_codes: True if codes are predicted rather than values.
    """

    of_codes: bool

    @abstractmethod
    def steps(self, frames: Any) -> Any:
        """Number of steps for `frames` frames, an int or a tensor."""

    @abstractmethod
    def frames(self, steps: int) -> int | None:
        """Number of frames after `steps` steps; None if the last frame is incomplete."""

    @abstractmethod
    def inputs(self, target: Tensor, backbone: Backbone) -> Tensor:
        """Input embeddings of latents for the language model, `(batch, steps, width)`."""

    @abstractmethod
    def forward(self, states: Tensor, target: Tensor, frames: Tensor, backbone: Backbone) -> HeadOutput:
        """Compute the loss of the prediction of each step from the state before it.

        Args:
            states: `(batch, steps, width)`.
            target: codec values or codes, `(batch, ..., frames * K)`.
            frames: number of frames per item without padding, `(batch,)` int64.
            backbone: language model of the states.
        """

    @abstractmethod
    def rollout(
        self, frames: int, seeds: Tensor, sampling: Sampling, backbone: Backbone, start: Start | None = None
    ) -> Rollout:
        """Start sampling `frames` frames for each of the seeds `(batch,)`, after the given frames of `start`.

        Raises:
            PartitaError: `sampling` has a setting that this head does not support.
        """


class GenerationHeadConfig(Config):
    """Configuration of a head."""

    @abstractmethod
    def own_ids(self, spec: LatentSpec) -> int:
        """Number of ids that the head needs in the vocabulary; 0 for a model without an output layer.

        Raises:
            PartitaError: the head cannot be built for these latents.
        """

    @abstractmethod
    def build(
        self, *, codec: Codec, encoder: RepresentationEncoder | None, scale: LatentNormalizer, states: int
    ) -> GenerationHead:
        """Build the head for the latents of a codec.

        Args:
            codec: codec of the latents.
            encoder: encoder of the language model's inputs; None for the latents themselves.
            scale: normalizer of the latents.
            states: width of the language model's states.

        Raises:
            PartitaError: the head does not support the encoder.
        """
