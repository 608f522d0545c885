"""Conformance suites: dummies pass, and every check of codecs and of two ranks can fail."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from unittest import SkipTest

import pytest
import torch
from partita_core import AudioSpec, Autoencoder, ChannelLayout, Latents, LatentSpec, PartitaError, components
from partita_testing import (
    BOTTLENECK_CHECKS,
    CODEC_CHECKS,
    DECODER_CHECKS,
    DISCRIMINATOR_CHECKS,
    ENCODER_CHECKS,
    LOSS_CHECKS,
    QUANTIZER_CHECKS,
    REPRESENTATION_CHECKS,
    BottleneckCase,
    Case,
    CodecCase,
    DecoderCase,
    EncoderCase,
    RepresentationCase,
    Suite,
    check_bottleneck,
    check_quantizer,
)
from partita_testing._common import Check
from partita_testing.dummies import (
    CONFIGS,
    AveragingConfig,
    BlockCodec,
    CumulativeConfig,
    DenoisingConfig,
    NoisyConfig,
    RoundingConfig,
    StridedConfig,
    TransposedConfig,
    autoencoder,
    blocks,
)

MONO = AudioSpec(8000, 1, (ChannelLayout.MONO,))
STEREO = AudioSpec(8000, 2, (ChannelLayout.STEREO,))
SUITES = {
    "encoder": ENCODER_CHECKS,
    "bottleneck": BOTTLENECK_CHECKS,
    "quantizer": QUANTIZER_CHECKS,
    "decoder": DECODER_CHECKS,
    "loss": LOSS_CHECKS,
    "discriminator": DISCRIMINATOR_CHECKS,
    "representation": REPRESENTATION_CHECKS,
}

# ------------------------------------------------------------------ what is right passes

PARTS = [(config.tag.split("/")[0], config()) for config in CONFIGS] + [
    ("encoder", EncoderCase(StridedConfig(tokens_per_frame=2), audio_spec=MONO, out_dim=3)),
    ("bottleneck", BottleneckCase(RoundingConfig(levels=7), dim=3)),
    ("decoder", DecoderCase(TransposedConfig(), audio_spec=STEREO, tokens_per_frame=2)),
    ("decoder", DecoderCase(DenoisingConfig(), audio_spec=MONO, dim=3, hop=12, tokens_per_frame=2)),
    ("representation", RepresentationCase(AveragingConfig(), latent_spec=LatentSpec(4, 8000, 16))),
]


@pytest.mark.parametrize(
    "check, subject",
    [pytest.param(c, subject, id=f"{i}-{c.__name__}") for i, (r, subject) in enumerate(PARTS) for c in SUITES[r]],
)
def test_dummies_pass(check, subject):
    check(subject)


CODECS = {
    "plain": autoencoder,
    "mono": partial(autoencoder, ChannelLayout.MONO),
    "stereo": partial(autoencoder, ChannelLayout.STEREO),
    "attached": partial(autoencoder, quantizer=RoundingConfig()),
    "in_the_slot": partial(autoencoder, bottleneck=RoundingConfig()),
    "sets": partial(autoencoder, encoder=StridedConfig(tokens_per_frame=2)),
    "state": partial(autoencoder, encoder=CumulativeConfig(), quantizer=RoundingConfig()),
    "denoising": partial(autoencoder, decoder=DenoisingConfig()),
    "denoising_sets": partial(autoencoder, encoder=StridedConfig(tokens_per_frame=2), decoder=DenoisingConfig()),
    "denoising_codes": partial(autoencoder, bottleneck=RoundingConfig(), decoder=DenoisingConfig()),
    "blocks": blocks,
}


@pytest.mark.parametrize("check", CODEC_CHECKS)
@pytest.mark.parametrize("name", CODECS)
def test_codecs_pass(name, check):
    check(CODECS[name])


@pytest.mark.parametrize("check", CODEC_CHECKS)
def test_codec_passes_in_float32(check):
    check(CodecCase(autoencoder, dtype=torch.float32))


# ------------------------------------------------------------------ codecs that are broken


class Longer(BlockCodec):
    def decode(self, latents, **kwargs):
        return torch.nn.functional.pad(super().decode(latents, **kwargs), (0, 1))


class Mingling(BlockCodec):
    def encode_frames(self, audio, layout, num_quantizers):
        return super().encode_frames(audio - audio.mean(0), layout, num_quantizers)


class Counting(BlockCodec):
    def decode_frames(self, values, codes, layout, sampler, seeds):
        return super().decode_frames(values, codes, layout, sampler, seeds) * len(layout)


def contextless():
    codec = autoencoder()
    codec.encoder.context = (0, 0)
    return codec


class Late(BlockCodec):
    def encode_stream(self, layout, **kwargs):
        stream = super().encode_stream(layout, **kwargs)
        stream.left, stream.right = 1, 1  # without declaring the latency
        return stream


class Dicing(BlockCodec):
    def encode_frames(self, audio, layout, num_quantizers):
        return super().encode_frames(audio + torch.rand_like(audio), layout, num_quantizers)


class Ambient(BlockCodec):
    ambient = False

    def encode(self, audio, **kwargs):
        self.ambient = torch.is_autocast_enabled("cpu")
        return super().encode(audio, **kwargs)

    def encode_frames(self, audio, layout, num_quantizers):
        return super().encode_frames(-audio if self.ambient else audio, layout, num_quantizers)


class Inference(Autoencoder):
    def encode(self, audio, **kwargs):
        with torch.inference_mode():
            return super().encode(audio, **kwargs)


class Prefixless(BlockCodec):
    def encode_frames(self, audio, layout, num_quantizers):
        values, codes = super().encode_frames(audio, layout, num_quantizers)
        return values, codes.clamp(min=0)


class Lenient(BlockCodec):
    def encode(self, audio, **kwargs):
        return super().encode(audio.nan_to_num(), **kwargs)


class Trusting(BlockCodec):
    def check_latents(self, latents, *, piece=False):
        return latents.denormalize()


class Clumsy(BlockCodec):
    def encode(self, audio, **kwargs):
        return super().encode(audio if isinstance(audio, torch.Tensor) else torch.tensor(audio) / 2, **kwargs)


class Nameless(BlockCodec):
    @property
    def space_id(self):
        return self.__dict__.setdefault("first", super().space_id)


class Leaky(Latents):
    def save(self, path):
        Latents.save(replace(self, space_id=None), path)


class Leaking(BlockCodec):
    def _latents(self, *args):
        latents = super()._latents(*args)
        return Leaky(**{name: getattr(latents, name) for name in latents.__dataclass_fields__})


def blocks_of(cls):
    codec = blocks()
    codec.__class__ = cls
    return codec


def inference():
    codec = autoencoder()
    codec.__class__ = Inference
    return codec


def changed_after_building():
    codec = autoencoder()
    scale = torch.nn.Parameter(torch.ones(1))
    codec.encoder.register_forward_hook(lambda module, args, hidden: hidden * 2 * scale)
    return codec


BROKEN = {
    "every_length_round_trips": partial(blocks_of, Longer),
    "batch_composition_does_not_matter": partial(blocks_of, Mingling),
    "batch_size_limit_does_not_matter": partial(blocks_of, Counting),
    "tiles_equal_whole": contextless,
    "streams_equal_batch": partial(blocks_of, Late),
    "eval_is_deterministic": partial(blocks_of, Dicing),
    "results_are_equal_under_autocast": partial(blocks_of, Ambient),
    "latents_work_in_training": inference,
    "codes_are_consistent": partial(blocks_of, Prefixless),
    "arrays_equal_tensors": partial(blocks_of, Clumsy),
    "invalid_audio_raises": partial(blocks_of, Lenient),
    "foreign_latents_raise": partial(blocks_of, Trusting),
    "space_id_identifies_the_weights": partial(blocks_of, Nameless),
    "saved_latents_round_trip": partial(blocks_of, Leaking),
    "saved_model_round_trips": changed_after_building,
}


def test_every_codec_check_has_a_broken_codec():
    assert set(BROKEN) == set(CODEC_CHECKS.names)


@pytest.mark.parametrize("name", CODEC_CHECKS.names)
def test_check_fails_for_the_broken_part(name):
    with pytest.raises(AssertionError, match=f"^codec .*: {name}: ") as caught:
        CODEC_CHECKS[name](BROKEN[name])
    # An inference tensor in a graph raises; all other defects are found by comparison.
    assert (": raised " in str(caught.value)) == (name == "latents_work_in_training"), caught.value


# ------------------------------------------------------------------ what a suite is


def test_suite_is_a_collection_of_functions_with_names():
    names = [check.__name__ for check in BOTTLENECK_CHECKS]
    assert names == list(BOTTLENECK_CHECKS.names) and len(set(names)) == len(BOTTLENECK_CHECKS) == len(names)
    assert all(BOTTLENECK_CHECKS[name] in BOTTLENECK_CHECKS for name in names)
    assert set(names) < set(QUANTIZER_CHECKS.names)


def test_failures_end_in_the_fix_and_dependent_checks_are_skipped():
    def fail(case):
        raise AssertionError(f"{case.config} is 2")

    first = Check(fail, "make it 3")
    second, third = Check(lambda case: fail(case), "unused", (first,)), Check(lambda case: 1 / 0, "divide by 1")
    passing = Check(lambda case: None, "unused", (first,))
    object.__setattr__(second.function, "__name__", "second")
    object.__setattr__(third.function, "__name__", "third")
    suite = Suite("number", CountCase, (first, second, passing, third))
    with pytest.raises(AssertionError, match="^number count: fail: 1 is 2; make it 3$"):
        suite["fail"](1)
    with pytest.raises(SkipTest, match="number count: second .*fail"):
        suite["second"](1)
    suite["<lambda>"](1)  # passes, so its requirements are not run
    with pytest.raises(AssertionError) as caught:
        suite.check(1)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["fail", "third"]
    assert "ZeroDivisionError" in str(caught.value) and str(caught.value).endswith("; divide by 1")


class CountCase(Case):
    name = "count"

    def make(self):
        return self.config


def test_suites_preserve_the_random_state():
    before = torch.get_rng_state()
    check_bottleneck(NoisyConfig())
    assert torch.equal(before, torch.get_rng_state())


def test_case_finds_a_width_that_the_part_accepts():
    class Fussy(RoundingConfig):
        tag = "quantizer/fussy"

        def build(self, *, dim):
            if dim % 7:
                raise PartitaError(f"dim is {dim}")
            return super().build(dim=dim)

    assert BottleneckCase(Fussy()).build().dim == 7
    with pytest.raises(AssertionError, match="quantizer quantizer/fussy: .*no dim is accepted.*dim is 5"):
        check_quantizer(BottleneckCase(Fussy(), dim=5))


def test_case_finds_a_hop_that_the_decoder_accepts():
    assert DecoderCase(TransposedConfig()).latent_spec.hop == 16
    with pytest.raises(AssertionError, match="no hop and tokens_per_frame .*hop is 16, the latents' is 15"):
        _ = DecoderCase(TransposedConfig(), hop=15).latent_spec


@pytest.mark.slow
def test_dummies_are_registered_only_within_the_context():
    assert "bottleneck/noisy" in components()
    code = "import partita_testing.dummies as d; print(any(c.tag in d.registry.components() for c in d.CONFIGS))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


# ------------------------------------------------------------------ two ranks

DRIFTING = """
import torch
from partita_testing.dummies import NoisyBottleneck, NoisyConfig
from partita_testing.two_ranks import check_two_ranks

class Drifting(NoisyBottleneck):
    def _update(self, power):
        self.power.lerp_(power.reshape(1), 0.1)

class DriftingConfig(NoisyConfig):
    tag = "bottleneck/drifting"
    def build(self, *, dim):
        return Drifting(dim, noise=self.noise, gain=self.gain)

check_two_ranks([NoisyConfig(), DriftingConfig()])
"""


@pytest.mark.slow
def test_different_state_on_two_ranks_fails(tmp_path):
    script = tmp_path / "drifting.py"
    script.write_text(DRIFTING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode != 0
    said = re.search(r"AssertionError: (after 2 steps .*)", done.stderr)
    assert said and said[1] == "after 2 steps on different data the ranks differ in bottleneck/drifting: power"
