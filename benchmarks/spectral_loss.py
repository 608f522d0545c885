"""Speed of our multi-resolution STFT loss and auraloss's, forward and backward, with the same resolutions.

    python benchmarks/spectral_loss.py [--threads N] [--rounds N]

Two comparisons: one channel with our seven resolutions, where the definitions nearly agree; and stereo with sum,
difference, left and right, for which auraloss's sum-and-difference loss is combined with losses of left and right.
"""

# ruff: noqa: E402
import argparse

from partita.cli._runtime import prepare_process

prepare_process()

import auraloss
import torch
from harness import alternate, machine, publish, summary, table
from partita_core import AudioSpec, ChannelLayout
from partita_losses import MultiResolutionSTFTConfig

SAMPLES, BATCH = 67_200, 4


def main() -> None:
    """Run both comparisons, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = MultiResolutionSTFTConfig(a_weighted=False)
    sizes = {"fft_sizes": config.n_ffts, "hop_sizes": config.hops, "win_lengths": config.win_lengths}
    sizes = {key: list(value) for key, value in sizes.items()}
    mono = config.build(audio_spec=AudioSpec(44_100, 1, (ChannelLayout.MONO,)))
    stereo = config.build(audio_spec=AudioSpec(44_100, 2, (ChannelLayout.STEREO,)))
    their_mono = auraloss.freq.MultiResolutionSTFTLoss(**sizes)
    their_stereo = auraloss.freq.SumAndDifferenceSTFTLoss(**sizes)

    def both_ways(loss, channels: int):
        prediction = (0.1 * torch.randn(BATCH, channels, SAMPLES)).requires_grad_()
        target = 0.1 * torch.randn(BATCH, channels, SAMPLES)

        def call() -> None:
            (gradient,) = torch.autograd.grad(loss(prediction, target), prediction)
            assert gradient.isfinite().all()

        return call

    def theirs(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sides = sum(their_mono(prediction[:, i : i + 1], target[:, i : i + 1]) for i in range(2))
        return their_stereo(prediction, target) + 0.5 * sides

    seconds = alternate(
        {
            "auraloss, one channel": both_ways(their_mono, 1),
            "ours, one channel": both_ways(lambda p, t: mono(p, t).mean(), 1),
            "auraloss, four views of stereo": both_ways(theirs, 2),
            "ours, four views of stereo": both_ways(lambda p, t: stereo(p, t).mean(), 2),
        },
        rounds=options.rounds,
    )
    found = summary(seconds)
    rows = []
    for name, times in found.items():
        baseline = found[name.replace("ours", "auraloss")]["median"]
        rows.append([name, f"{1e3 * times['median']:.0f}", f"{baseline / times['median']:.2f}"])
    header = ["forward and backward", "median, ms", "speed-up over auraloss"]
    publish("spectral_loss", machine("auraloss") | {"rounds": options.rounds}, found, table(header, rows))


if __name__ == "__main__":
    main()
