"""All combinations of encoders, bottlenecks and decoders: those that fit train, and the others raise an error.

`python tests/test_mixes.py` writes the table of `docs/mixing.md`.
"""

import re
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from partita.objectives import AdversarialReconstructionConfig, ConsistencyTrainingConfig, TrainState
from partita_core import (
    AudioSpec,
    Autoencoder,
    AutoencoderConfig,
    ChannelLayout,
    DenoisingDecoder,
    PartitaError,
    components,
    lookup,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "mixing.md"
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=\n<!-- end of the table -->)", re.DOTALL)
REGENERATE = "the table of docs/mixing.md is out of date; run: python tests/test_mixes.py"

# All three layouts with two channels, and an even width, fit the example of every part.
AUDIO = AudioSpec(44_100, 2, tuple(ChannelLayout))
LATENT_DIM = 4
SAMPLES = 384
STEPS = 2

ENCODERS = list(components("encoder/*"))
BOTTLENECKS = [*components("bottleneck/*"), *components("quantizer/*")]
DECODERS = list(components("decoder/*"))
PARTS = (ENCODERS, BOTTLENECKS, DECODERS)
MIXES = list(product(*PARTS))


def short(tag: str) -> str:
    return tag.split("/")[1]


def assembly(*tags: str) -> AutoencoderConfig:
    return AutoencoderConfig(AUDIO, LATENT_DIM, *(lookup(tag).example() for tag in tags))


@cache
def refusal(*tags: str) -> str | None:
    """The error for parts that do not fit; None if they do."""
    try:
        assembly(*tags).build()
    except PartitaError as error:
        return str(error)


# ------------------------------------------------------------------ the matrix


def trained(model: Autoencoder) -> None:
    """Train two steps with the objective of the decoder."""
    denoising = isinstance(model.decoder, DenoisingDecoder)
    config = ConsistencyTrainingConfig if denoising else AdversarialReconstructionConfig
    objective = config.example().build(model=model.train())
    groups = {phase: objective.parameter_groups(phase) for phase in objective.phases}
    optimizers = {  # linear codecs have nothing to train
        phase: torch.optim.Adam(group, lr=1e-2) for phase, group in groups.items() if group[0]["params"]
    }
    samples = SAMPLES - SAMPLES % objective.crop_multiple
    stereo = torch.full((2,), int(ChannelLayout.STEREO))
    batch = {"audio": 0.3 * torch.randn(2, 2, samples), "audio_lengths": torch.full((2,), samples)}
    batch |= {"layout": stereo, "target_layout": stereo}
    for step in range(STEPS):
        for phase in objective.phases:
            out = objective(batch, TrainState(step, STEPS), phase)
            if phase in optimizers:
                optimizers[phase].zero_grad()
                out.total.backward()
                optimizers[phase].step()
            batch["samples"] = out.samples
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert without == [], "parameters without a gradient stop distributed training"
    model.eval()


def in_the_default_suite(tags: tuple[str, ...]) -> bool:
    """True for a Latin square, which has each pair of parts once, and for the decoder that fits the summary encoder."""
    if tags[0] == "encoder/summary":
        return tags[2] == "decoder/consistency"
    encoder, bottleneck, decoder = (part.index(tag) for part, tag in zip(PARTS, tags))
    return (encoder + bottleneck) % len(DECODERS) == decoder


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param(
            tags, id="-".join(map(short, tags)), marks=[] if in_the_default_suite(tags) else [pytest.mark.slow]
        )
        for tags in MIXES
    ],
)
def test_parts_that_fit_train_and_save_and_others_raise(tags, tmp_path):
    if (message := refusal(*tags)) is not None:  # the test of the table checks that it is expected
        assert "\n" not in message and len(re.findall(r"\d+", message)) >= 2
        return
    torch.manual_seed(0)
    model = assembly(*tags).build()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained(model)
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert {name.split(".")[0] for name in moved} == {name.split(".")[0] for name in before}

    model.save_pretrained(tmp_path / "model")
    loaded = Autoencoder.from_pretrained(tmp_path / "model")
    audio = 0.3 * torch.randn(2, 2, 2 * model.latent_spec.hop + 5)
    latents, again = model.encode(audio), loaded.encode(audio)
    assert torch.equal(again.values, latents.values) and again.values.isfinite().all()
    assert loaded.space_id == model.space_id
    if latents.codes is not None:
        assert torch.equal(again.codes, latents.codes)
    decoded = loaded.decode(latents)
    assert decoded.shape == audio.shape and decoded.isfinite().all()
    assert decoded.abs().amax() > 0 or not before  # a linear codec that is not fitted may round to zeros


# ------------------------------------------------------------------ errors


def test_feed_forward_decoder_needs_the_hop_and_one_token_per_frame():
    """The summary encoder with a feed-forward decoder: the hop is checked first, then the tokens per frame."""
    config = assembly("encoder/summary", "bottleneck/tanh", "decoder/oobleck")
    with pytest.raises(PartitaError, match="hop of 24, the encoder's is 48"):
        config.build()
    config = replace(config, decoder=replace(config.decoder, strides=(3, 4, 4)))
    with pytest.raises(PartitaError, match="1 token.* makes 2"):
        config.build()
    model = replace(config, encoder=replace(config.encoder, tokens_per_frame=1)).build().eval()
    assert model.decode(model.encode(torch.rand(1, 2, 100))).shape == (1, 2, 100)


# ------------------------------------------------------------------ the page


def table(encoders: list[str], bottlenecks: list[str], decoders: list[str]) -> str:
    """Table with an encoder and a bottleneck per row and a decoder per column, and the reasons below it."""
    reasons: list[str] = []

    def cell(message: str | None) -> str:
        if message is None:
            return "yes"
        if message not in reasons:
            reasons.append(message)
        return f"no ({reasons.index(message) + 1})"

    rows = [["encoder", "bottleneck", *map(short, decoders)], ["---"] * (2 + len(decoders))]
    for encoder, bottleneck in product(encoders, bottlenecks):
        cells = [cell(refusal(encoder, bottleneck, decoder)) for decoder in decoders]
        rows.append([short(encoder), short(bottleneck), *cells])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numbered = [f"{i}. {reason}" for i, reason in enumerate(reasons, start=1)]
    return "\n".join(["", *lines, "", *numbered, ""])


def listed() -> tuple[list[str], list[str], list[str]]:
    """Tags of the encoders, bottlenecks and decoders in the table of the page."""
    (found,) = TABLE.findall(PAGE.read_text())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines() if line[:1] == "|"]
    named = [row[0] for row in rows[2:]], [row[1] for row in rows[2:]], rows[0][2:]
    encoders, bottlenecks, decoders = (
        [tag for tag in tags if short(tag) in names] for tags, names in zip(PARTS, named)
    )
    return encoders, bottlenecks, decoders


@pytest.mark.slow
def test_table_of_the_page_is_up_to_date():
    """Parts that are missing in the table are not checked; the script adds them."""
    assert TABLE.findall(PAGE.read_text()) == [table(*listed())], REGENERATE
    assert all(len(tags) >= 4 for tags in listed())


if __name__ == "__main__":
    packages = [path.parent.name for path in PAGE.parents[1].glob("packages/*/src/*/__init__.py")]
    own = [[tag for tag in tags if lookup(tag).__module__.split(".")[0] in packages] for tags in PARTS]
    PAGE.write_text(TABLE.sub(lambda _: table(*own), PAGE.read_text()))
