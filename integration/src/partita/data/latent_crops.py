"""Training crops of stored latents, cut at random frames."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError, network_layout
from torch import Generator

from .batches import Item
from .corpus.spec import corpus_spec
from .crops import Crops
from .data_config import DataConfig

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class LatentCrops(Crops):
    """Crops of the files of a corpus of latents; a file shorter than a crop is padded with zeros.

    Args:
        dataset: corpus or stream of one, as `open_dataset` returns it.
        audio_spec: audio that the codec takes.
        crop_samples: length of a crop in samples of the encoded audio.
        config: texts and labels; the other settings are not used.
        seed: seed of all random draws.
        classes: class names for string columns, as of another split; None for those of the data set.

    Raises:
        PartitaError: the data set holds no latents, or a column for texts or labels is missing.
    """

    kind = "latents"

    def __init__(
        self,
        dataset: "Dataset | IterableDataset",
        *,
        audio_spec: AudioSpec,
        crop_samples: int,
        config: DataConfig,
        seed: int,
        classes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(dataset, config=config, seed=seed, classes=classes)
        spec = corpus_spec(dataset)
        if spec is None:
            raise PartitaError("the data set holds audio, not latents; encode it first")
        self.spec, self.layouts = spec, audio_spec.layouts
        self.frames = max(1, crop_samples // spec.latent.hop)

    def _draw(self, row: dict[str, Any], index: int, generator: Generator, allow_silence: bool) -> tuple[Item, bool]:
        self.spec.check_row(row)
        frames = min(row["frames"], self.frames)
        start = int(torch.randint(row["frames"] - frames + 1, (), generator=generator))
        left = row["audio_length"] - start * self.spec.latent.hop
        item = Item(
            audio_lengths=min(left, frames * self.spec.latent.hop),
            layout=int(network_layout(ChannelLayout(row["layout"]), self.layouts)),
        )
        tokens = self.frames * self.spec.latent.tokens_per_frame
        for name, part in self.spec.unpack(row, start, frames).items():
            if name != "gain":
                padded = torch.full((part.shape[0], tokens), -1 if name == "codes" else 0, dtype=part.dtype)
                padded[:, : part.shape[1]] = part
                item[name] = padded
        return item, frames == row["frames"]
