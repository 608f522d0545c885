"""Train a small audio autoencoder from the packages alone, with accelerate and a plain training loop.

    python examples/train_minimal.py FOLDER --steps 2000 --output model
    python examples/train_minimal.py FOLDER --output model --decode song.flac song_again.wav

`FOLDER` holds audio files of any rate that libsndfile reads. The folder `model` is a model folder like any other:
`Autoencoder.from_pretrained("model")` and all commands of `partita` load it. `partita train` adds what long runs need:
exact resumption, adversarial phases, validation, averaged weights, and data sets of any size.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from accelerate import Accelerator
from partita_bottlenecks import VAE
from partita_core import AudioSpec, Autoencoder, LatentSpec
from partita_decoders import GenAEDecoder
from partita_encoders import GenAEEncoder
from partita_losses import MultiResolutionSTFT, WaveformL1
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SAMPLE_RATE = 16_000
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg"}


def assemble(dim: int = 64) -> Autoencoder:
    """Assemble a mono autoencoder with `dim` numbers per frame of 320 samples, 50 frames per second."""
    audio = AudioSpec(SAMPLE_RATE)
    bottleneck = VAE(dim)
    encoder = GenAEEncoder(
        bottleneck.in_dim,
        audio,
        strides=(4, 8, 10),
        channels=(16, 32, 64, 128),
        attention_dim=128,
        mel_stage=2,
        mels=64,
    )
    decoder = GenAEDecoder(
        LatentSpec(dim, SAMPLE_RATE, encoder.hop),
        audio,
        strides=(10, 8, 4),  # from the latents to the samples
        channels=(128, 64, 32, 16),
        attention_dim=128,
    )
    return Autoencoder(encoder, bottleneck, decoder)


def read(path: Path, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Read mono float32 audio at `SAMPLE_RATE`; `start` is a fraction of the file that leaves room for `seconds`."""
    with soundfile.SoundFile(path) as file:
        frames = len(file) if seconds is None else min(len(file), round(seconds * file.samplerate))
        file.seek(int(start * (len(file) - frames)))
        audio = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
        return soxr.resample(audio, file.samplerate, SAMPLE_RATE)


class Crops(Dataset[Tensor]):
    """Random crops `(1, samples)` of the audio files in a folder, padded with zeros where a file is shorter."""

    def __init__(self, folder: Path, *, samples: int, length: int) -> None:
        self.files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        self.samples, self.length = samples, length
        if not self.files:
            raise SystemExit(f"{folder} holds no audio files ({', '.join(sorted(SUFFIXES))})")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        file, start = torch.rand(2).tolist()
        path = self.files[int(file * len(self.files))]
        audio = torch.from_numpy(read(path, start, self.samples / SAMPLE_RATE))[: self.samples]
        return torch.nn.functional.pad(audio, (0, self.samples - len(audio)))[None]


def train(model: Autoencoder, folder: Path, *, steps: int, batch_size: int = 8, frames: int = 25) -> None:
    """Train on crops of `frames` latent frames, on whatever devices accelerate finds."""
    accelerator = Accelerator()
    crops = Crops(folder, samples=frames * model.latent_spec.hop, length=steps * batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.8, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-4, total_steps=steps, pct_start=0.05)
    losses = {"stft": MultiResolutionSTFT(SAMPLE_RATE), "waveform": WaveformL1()}
    weights = {"stft": 1.0, "waveform": 10.0} | model.bottleneck.loss_weights
    loader = DataLoader(crops, batch_size=batch_size)
    network, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    layout = torch.zeros(batch_size, dtype=torch.int64, device=accelerator.device)  # mono
    network.train()
    for step, audio in enumerate(loader):
        reconstruction, bottleneck = network(audio, layout[: len(audio)])
        terms = {name: loss.to(audio.device)(reconstruction, audio).mean() for name, loss in losses.items()}
        terms |= bottleneck.losses
        total = sum(weights[name] * term for name, term in terms.items())
        accelerator.backward(total)
        accelerator.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            values = ", ".join(f"{name} {float(term.detach()):.4f}" for name, term in terms.items())
            accelerator.print(f"step {step}: {values}")
    accelerator.end_training()


@torch.no_grad()
def reconstruct(model: Autoencoder, source: Path, target: Path) -> None:
    """Encode a file to latents, decode these, and write the result; memory does not grow with the file's length."""
    audio = torch.from_numpy(read(source))[None, None]
    latents = model.eval().encode(audio)
    decoded = model.decode(latents)[0]
    soundfile.write(target, decoded.clamp(-1, 1).T.numpy(), SAMPLE_RATE)
    error = (decoded - audio[0]).square().mean() / audio.square().mean()
    print(f"{target}: {latents.values.shape[-1]} frames, SNR {-10 * error.log10():.1f} dB")


def main() -> None:
    """Train a model, or decode a file with one that is trained."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with audio files to train on")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--output", type=Path, default=Path("model"), help="model folder")
    parser.add_argument("--decode", type=Path, nargs=2, metavar=("IN", "OUT"), help="file to encode and decode")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}; at least 1 is needed")
    if options.output.exists():
        print(f"{options.output} exists and is not trained again")
        model = Autoencoder.from_pretrained(options.output)
    else:
        torch.manual_seed(0)
        model = assemble()
        train(model, options.folder, steps=options.steps)
        model.save_pretrained(options.output)
    if options.decode:
        reconstruct(model, *options.decode)


if __name__ == "__main__":
    main()
