"""Types that a user's editor and type checker see: calls of modules, and Config classes of components."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

USES = """
from collections.abc import Sequence
from typing import assert_type

from partita_core import (
    AudioSpec, AudioTransform, Bottleneck, BottleneckOutput, Config, Encoder, FeedForwardDecoder, Loss, Quantizer,
    RepresentationEncoder, config_of, register,
)
from partita_core.ranges import Positive
from torch import Tensor


@register("encoder/scaled", example={"gain": 2.0})
class Scaled(Encoder):
    def __init__(self, out_dim: int, audio_spec: AudioSpec, *, gain: Positive = 1.0) -> None:
        super().__init__()
        self.out_dim, self.audio_spec, self.gain = out_dim, audio_spec, gain

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        return audio * self.gain


ScaledConfig = config_of(Scaled)


class Gain(Loss):
    def forward(
        self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        return prediction.sum((1, 2))


def use(
    encoder: Encoder, bottleneck: Bottleneck, quantizer: Quantizer, decoder: FeedForwardDecoder,
    representation: RepresentationEncoder, transform: AudioTransform, audio: Tensor, layout: Tensor,
) -> None:
    hidden = encoder(audio, layout)
    assert_type(hidden, Tensor)
    assert_type(bottleneck(hidden, stochastic=True, lengths=layout), BottleneckOutput)
    assert_type(quantizer(hidden).values, Tensor)
    assert_type(decoder(hidden, layout), Tensor)
    assert_type(representation(hidden), Tensor)
    assert_type(transform(audio), Tensor)
    assert_type(Gain()(audio, audio, lengths=[3]), Tensor)
    assert_type(Scaled(3, encoder.audio_spec, gain=0.5)(audio, layout), Tensor)
    assert_type(ScaledConfig(gain=0.5), Config)
    assert_type(ScaledConfig.example(), Config)
"""
MISTAKES = """
def misuse(encoder: Encoder, bottleneck: Bottleneck, loss: Loss, audio: Tensor) -> None:
    encoder(audio)
    encoder(audio, 3)
    bottleneck(audio, True)
    bottleneck(audio).value
    loss(audio)
    Scaled(3, encoder.audio_spec, 0.5)
    Scaled(3, encoder.audio_spec, gian=0.5)
    ScaledConfig(gain="loud")
"""


def errors(source: str, folder) -> set[int]:
    """Lines of `source` in which strict pyright reports an error."""
    (folder / "snippet.py").write_text(source)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["snippet.py"]}')
    command = [sys.executable, "-m", "pyright", "--project", folder, "--pythonpath", sys.executable, "--outputjson"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)["generalDiagnostics"]
    return {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
def test_calls_and_settings_are_typed(tmp_path):
    wrong = range(USES.count("\n") + 3, (USES + MISTAKES).count("\n") + 1)  # all lines of `misuse`
    assert errors(USES + MISTAKES, tmp_path) == set(wrong)
