"""The latent space of a model: making, checking and looking up latents, and the statistics saved with a model."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._checks import Layouts, known_layouts, layout_list
from .arrays import as_integers, as_tensor
from .codes import check_codes
from .configs import from_dict, to_dict
from .errors import PartitaError, short_repr
from .fingerprints import Fingerprinted
from .latents import Latents
from .layouts import network_layout
from .specs import AudioSpec, LatentSpec


class LatentSpace(Fingerprinted, ABC):
    """Base class of models that encode latents.

    Attributes:
        audio_spec: audio that the network takes and returns.
        latent_spec: latents that it makes.
        has_gain: True if each frame has its own scale, kept in `Latents.gain`.
    """

    audio_spec: AudioSpec
    latent_spec: LatentSpec
    has_gain: bool = False

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Look up the values `(batch, dim, tokens)` of codes `(batch, num_quantizers, tokens)`.

        Raises:
            PartitaError: the model has no quantizer, or a code is out of range; see `check_codes`.
        """
        raise self._no_quantizer()

    def _no_quantizer(self) -> PartitaError:
        return PartitaError(f"{type(self).__name__} has no quantizer to look up codes; attach one, or pass values")

    def check_codes(self, codes: Any) -> Tensor:
        """Return codes as int64, each within its codebook; see `partita_core.check_codes`."""
        return check_codes(codes, self.latent_spec.codebook_sizes)

    def project(self, values: Tensor) -> Tensor:
        """Map values `(batch, dim, tokens)` to the nearest latents of this model; see `Bottleneck.project`."""
        values = as_tensor(values, "values")
        return values.clamp(-1, 1) if self.latent_spec.bounded else values

    def latents(
        self,
        values: Any = None,
        *,
        codes: Any = None,
        lengths: Tensor | Sequence[int] | None = None,
        layout: Layouts | None = None,
        gain: Any = None,
        normalized: bool = False,
    ) -> Latents:
        """Wrap values or codes from elsewhere as latents of this model, to be decoded, saved or normalized.

        Args:
            values: `(batch, dim, frames * K)`; or None.
            codes: `(batch, num_quantizers, frames * K)`; or None.
            lengths: number of audio samples of each item; None for full frames.
            layout: channel layout of each item, or one for all; None if the model supports only one.
            gain: `(batch, frames)`, for a codec that scales each frame.
            normalized: True if the values are on the scale of `Latents.normalize`.

        Raises:
            PartitaError: shapes do not fit the model, or a number is out of range; see `Latents.check`.
        """
        content = [as_tensor(x, name) for x, name in ((values, "values"), (codes, "codes")) if x is not None]
        if any(x.dim() != 3 for x in content):
            raise PartitaError(f"values or codes are {tuple(content[0].shape)}; (batch, channels, tokens) is expected")
        spec = self.latent_spec
        if content and lengths is None:
            batch, _, tokens = content[0].shape
            lengths = [tokens // spec.tokens_per_frame * spec.hop] * batch
        lengths = as_integers([] if lengths is None else lengths, "lengths")
        if lengths.dim() != 1:
            raise PartitaError(f"lengths are {short_repr(lengths.tolist())}; one number per item is expected")
        if layout is None:
            layout = known_layouts(self.audio_spec, None, 1)[0]
        layouts = layout_list(layout, len(lengths))
        for item in layouts:
            network_layout(item, self.audio_spec.layouts)
        codes_id = None if codes is None else self.codes_id
        layouts = torch.tensor(layouts, dtype=torch.int64)
        latents = Latents(values, codes, lengths, layouts, spec, self.space_id, codes_id, gain, normalized)
        latents.check()
        return latents

    def _latents(self, values: Tensor | None, codes: Tensor | None, lengths: Tensor, layout: Tensor) -> Latents:
        """The record of what the network returned; the gain is the last channel of its values."""
        gain, codes_id = None, None if codes is None else self.codes_id
        if self.has_gain and values is not None:
            values, gain = values[:, :-1], values[:, -1, :: self.latent_spec.tokens_per_frame]
        return Latents(values, codes, lengths, layout, self.latent_spec, self.space_id, codes_id, gain)

    def _content(self, latents: Latents, device: torch.device) -> Tensor:
        """The decoder's input as one tensor: values, with the gain as the last channel, or else codes."""
        content = latents.codes if latents.values is None else latents.values
        assert content is not None
        if latents.gain is None:
            return content
        if latents.values is None:
            content = self.codes_to_values(content.to(device))
        gain = latents.gain.repeat_interleave(self.latent_spec.tokens_per_frame, dim=-1)
        return torch.cat([content, gain.unsqueeze(1).to(content)], dim=1)

    def check_latents(self, latents: Latents, *, piece: bool = False) -> Latents:
        """Check that this model can decode latents, and return them denormalized.

        Args:
            latents: the latents to decode.
            piece: True for a piece of a stream, which may be empty.

        Raises:
            PartitaError: they are not `Latents`, are of another shape, space or quantizer, or hold a number that is
                out of range; see `Latents.check`.
        """
        if not isinstance(latents, Latents):
            kind = type(latents).__name__
            raise PartitaError(f"Latents are expected, got a {kind}; wrap values with model.latents(values)")
        latents = latents.denormalize()
        pairs = [
            (name, getattr(latents.spec, name), getattr(self.latent_spec, name))
            for name in ("dim", "sample_rate", "hop", "tokens_per_frame")
        ]
        if latents.space_id is not None:
            pairs.append(("space_id", latents.space_id, self.space_id))
        if latents.values is None:
            if not self.latent_spec.codebook_sizes:
                raise self._no_quantizer()
            if latents.codes_id is not None:
                pairs.append(("codes_id", latents.codes_id, self.codes_id))
            pairs.append(("codebook_sizes", latents.spec.codebook_sizes, self.latent_spec.codebook_sizes))
        for name, given, expected in pairs:
            if given != expected:
                raise PartitaError(
                    f"these latents have {name} {short_repr(given)}, but {type(self).__name__} has "
                    f"{short_repr(expected)}; decode them with the model that made them"
                )
        if self.has_gain != (latents.gain is not None):
            given, expected = ("no gain", "a gain per frame") if self.has_gain else ("a gain", "none")
            raise PartitaError(f"these latents have {given}, and {type(self).__name__} needs {expected}")
        latents.check(piece=piece)
        return latents

    def restore(self, facts: dict[str, Any]) -> None:
        """Restore the measured statistics and the fingerprints from `config.json`; see `Saved.restore`."""
        spec = from_dict(LatentSpec, facts["latent_spec"], where="latent_spec")
        if replace(spec, mean=None, std=None) != self.latent_spec:
            given, expected = to_dict(replace(spec, mean=None, std=None)), to_dict(self.latent_spec)
            different = next(name for name in expected if given[name] != expected[name])
            raise PartitaError(
                f"latent_spec.{different} in config.json is {given[different]}, but the model has "
                f"{expected[different]}; save the model again"
            )
        self.latent_spec = spec
        self._restore_ids(facts)

    def _saved_facts(self) -> dict[str, Any]:
        """Entries of `config.json` that `restore` reads."""
        self._check_savable()
        return {"latent_spec": to_dict(self.latent_spec)} | self._ids()
