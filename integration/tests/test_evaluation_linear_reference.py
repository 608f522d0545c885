"""Linear codecs fitted to the training split, as references of an evaluation."""

import json
import math

import pytest
import torch
from partita.data import open_dataset
from partita.evaluation import evaluate
from partita.evaluation.linear_reference import fit_linear_reference
from partita_bottlenecks import IdentityConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, LatentSpec, PartitaError
from partita_decoders import GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig

RATE = 8000
STEREO = AudioSpec(RATE, 2, (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE))


class Numbers:
    """The specs of a model, which are all that a linear codec is made from."""

    def __init__(self, dim, hop, tokens=1, audio_spec=STEREO):
        self.audio_spec = audio_spec
        self.latent_spec = LatentSpec(dim, audio_spec.sample_rate, hop, tokens)


def clip(seed, channels=2):
    """Sound of a few partials below 1 kHz, mostly in the middle, over faint noise."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(RATE) / RATE
    side = 0.05 * torch.randn(channels, 1, generator=generator)
    tones = sum(torch.sin(2 * math.pi * (f * t + torch.rand(1, generator=generator))) for f in (200, 430, 610, 900))
    return 0.1 * tones * (1 + side) + 0.002 * torch.randn(channels, RATE, generator=generator)


def error_db(codec, audio, layout):
    decoded = codec.decode(codec.encode(audio[None], layout=layout))[0]
    return float(10 * ((decoded - audio).square().sum() / audio.square().sum()).log10())


@pytest.fixture
def train(tones):
    return open_dataset(tones, split="train")


def test_fit_is_the_linear_codec_of_the_hop_and_numbers(train):
    found = fit_linear_reference(Numbers(16, 80), train)
    spec = found.codec.latent_spec
    assert (spec.dim, spec.hop, spec.floats_per_second) == (16, 80, 1600)
    assert found.seconds == 3.0 and not found.codec.training  # six files of half a second
    again = fit_linear_reference(Numbers(16, 80), train)
    assert torch.equal(found.codec.encoder.projection.matrix, again.codec.encoder.projection.matrix)
    assert fit_linear_reference(Numbers(16, 80), train, seconds=1.0).seconds == 1.0


def test_fit_keeps_more_than_the_lowest_bins(tones, train):
    """The tones of the training files, up to 950 Hz, fit in few numbers."""
    import soundfile

    found = fit_linear_reference(Numbers(8, 80), train).codec
    lowest = fit_linear_reference(Numbers(8, 80), train).codec
    fresh = AutoencoderConfig(STEREO, 8, found.encoder.config, IdentityConfig(), found.decoder.config).build().eval()
    lowest.load_state_dict(fresh.state_dict())
    audio = torch.from_numpy(soundfile.read(tones / "test" / "tone_2.wav", dtype="float32")[0].T.copy())
    assert error_db(found, audio, "stereo") < error_db(lowest, audio, "stereo") - 1


@pytest.mark.parametrize(
    ("dim", "hop", "tokens", "expected"),
    [(16, 800, 1, (16, 800)), (4, 800, 8, (8, 200)), (4, 800, 10, (8, 160)), (4, 100, 4, (16, 100))],
)
def test_sets_of_latents_are_compared_with_shorter_frames(train, dim, hop, tokens, expected):
    spec = fit_linear_reference(Numbers(dim, hop, tokens), train).codec.latent_spec
    assert (spec.dim, spec.hop) == expected and spec.dim * hop // spec.hop == dim * tokens


def test_no_linear_codec_of_as_many_numbers_as_samples(train):
    assert fit_linear_reference(Numbers(160, 80), train) is None
    mono = AudioSpec(RATE, 1, (ChannelLayout.MONO,))
    assert fit_linear_reference(Numbers(79, 80, audio_spec=mono), train).codec.audio_spec.channels == 1


def test_evaluate_replaces_the_low_pass(train):
    torch.manual_seed(0)
    model = AutoencoderConfig(STEREO, 4, GenAEEncoderConfig.example(), IdentityConfig(), GenAEDecoderConfig.example())
    model = model.build()
    linear = fit_linear_reference(model, train).codec
    numbers = model.latent_spec.floats_per_second
    name = f"linear codec, {numbers:,.0f} numbers/s"
    clips = [(str(i), clip(i), "stereo") for i in range(2)] + [("mono", clip(2, 1), "mono")]
    found = evaluate({"m": model}, clips, ["si_sdr"], linear={name: linear})
    assert [system.name for system in found.systems] == ["m", "silence", "matched noise", name]
    row = found.systems[-1]
    assert row.reference and row.floats_per_second == numbers and row.bit_rate is None
    assert {(each.system, each.baseline) for each in found.differences} == {
        ("m", "silence"),
        ("m", "matched noise"),
        ("m", name),
    }
    assert list(found.latents) == ["m"]
    with pytest.raises(PartitaError, match="'silence'"):
        evaluate({"m": model}, clips, ["si_sdr"], linear={"silence": linear})


def test_command_fits_to_the_training_split(run, ok, tones, tmp_path):
    out, _ = ok("evaluate", run / "model", "--data", tones, "--metrics", "si_sdr", "--json", tmp_path / "a.json")
    assert "| linear codec, " in out and "low-pass" not in out
    assert "Linear codecs are fitted to 3 s of the split train." in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["settings"]["linear"] == {"seconds": 3.0, "split": "train"}
    unsplit, _ = ok("evaluate", run / "model", "--data", tones / "test", "--split", "train", "--metrics", "si_sdr")
    assert "| low-pass, " in unsplit and "linear codec" not in unsplit
