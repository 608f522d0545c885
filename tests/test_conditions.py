"""The benchmark of text conditioning, on tones with an untrained generator."""

import json
import math

import pytest
import soundfile
import torch
from partita.generation import FlowHeadConfig, GeneratorConfig, LlamaBackboneConfig
from partita.probing import Examples
from partita_bottlenecks import TanhConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import OobleckDecoderConfig
from partita_encoders import OobleckEncoderConfig


@pytest.fixture(scope="module")
def script(benchmark_module):
    return benchmark_module("conditions")


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """High and low tones in three splits."""
    folder = tmp_path_factory.mktemp("tones")
    lines = ["file_name,label"]
    generator = torch.Generator().manual_seed(0)
    for number in range(32):
        split = "train" if number < 20 else "validation" if number < 26 else "test"
        label, base = (("low", 200), ("high", 2000))[number % 2]
        pitch = base * (1 + 0.1 * torch.rand((), generator=generator))
        audio = 0.3 * torch.sin(2 * math.pi * pitch * torch.arange(4000) / 8000)
        (folder / split).mkdir(exist_ok=True)
        soundfile.write(folder / split / f"{number:02d}.wav", audio.numpy(), 8000)
        lines.append(f"{split}/{number:02d}.wav,{label}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def codec() -> Autoencoder:
    torch.manual_seed(0)
    parts = OobleckEncoderConfig.example(), TanhConfig(), OobleckDecoderConfig.example()
    return AutoencoderConfig(AudioSpec(8000, 1, (ChannelLayout.MONO,)), 4, *parts).build().eval()


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator") / "model"
    config = GeneratorConfig(FlowHeadConfig.example(), LlamaBackboneConfig.example())
    config.build(codec=codec()).save_pretrained(folder)
    return folder


def test_accuracies_are_over_probes_and_items(script):
    labels = torch.tensor([0, 1, 1])

    def always(label: int):
        return lambda features: torch.nn.functional.one_hot(torch.full((len(features),), label), 2)

    found = script.accuracies({"x": [always(0), always(1)]}, {"x": Examples(torch.zeros(3, 4), labels)})
    assert found == {"x": [0.5, 0.5, 0.5]}
    assert script.accuracies({"x": [always(1)]}, {"x": Examples(torch.zeros(3, 4), labels)}) == {"x": [0.0, 1.0, 1.0]}


@pytest.mark.slow
def test_script_end_to_end(script, generator, tones, tmp_path, capsys):
    output = ["--json", str(tmp_path / "found.json"), "--report", str(tmp_path / "page.html")]
    script.main([str(generator), "--data", str(tones), "--draws", "4", "--seconds", "0.3", *output])
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "found.json").read_text())
    rows = record["rows"]
    assert record["classes"] == ["high", "low"]
    assert record["finite"] is True and record["requested length"] is True
    assert rows["recordings"]["log-mel"]["mean"] == 1.0  # two octaves and more apart
    assert rows.keys() == {"recordings", "generated for its text", "generated without a text"}
    # Without a text and with equal seeds, classes differ only by chance.
    without_text = rows["generated without a text"]["log-mel"]
    assert 0 <= without_text["low"] <= without_text["mean"] <= without_text["high"] <= 1
    assert "| generated for its text | 8 |" in printed and "| chance |  | 0.500 | 0.500 |" in printed
    page = (tmp_path / "page.html").read_text()
    assert page.count('<article class="clip"') == 2
    assert page.count("<audio ") == 2 * (2 + 3)  # the recording, the codec's and three draws


def test_script_needs_a_generator(script, tones, tmp_path):
    codec().save_pretrained(tmp_path / "codec")
    with pytest.raises(PartitaError, match="not a generator"):
        script.main([str(tmp_path / "codec"), "--data", str(tones)])
