"""A data set of tones, runs of a few thousand parameters, and external codecs, for all tests of this package."""

import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from partita.cli import main
from partita.data import DataConfig, TextTask, write_audio
from partita.data.messages import warn_once
from partita.generation import FlowHeadConfig, GeneratorConfig, LlamaBackboneConfig
from partita.objectives import (
    AdversarialReconstructionConfig,
    ConsistencyTrainingConfig,
    LatentGenerationConfig,
    LatentQuantizationConfig,
    RepresentationSupervisionConfig,
)
from partita.training import AdamWConfig, Constant, Cosine, RAdamConfig, RunConfig, TrainerConfig, train
from partita.training.logs import read_log
from partita_bottlenecks import TanhConfig, VAEConfig
from partita_core import AudioSpec, Autoencoder, AutoencoderConfig, ChannelLayout, override
from partita_decoders import ConsistencyDecoderConfig, GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig, SummaryEncoderConfig
from partita_losses import GradientBalancerConfig, MultiResolutionSTFTConfig
from partita_quantizers import ReBottleneckConfig
from partita_representation import (
    CausalRepresentationConfig,
    FrozenLLMConfig,
    RepresentationModelConfig,
    RQMTPConfig,
    SwiGLUAdapterConfig,
)

RATE = 8000


@pytest.fixture(autouse=True)
def every_note():
    """Let each test log notes that earlier tests have logged."""
    warn_once.cache_clear()


@pytest.fixture
def datasets_cache(tmp_path_factory, monkeypatch):
    """A cache of `datasets` for the test alone, and no progress bars."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def write_tones(folder: Path, count: int, seconds: float = 0.5, channels: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(count)
    t = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE  # rounded once, to the same file everywhere
    for i in range(count):
        tone = 0.3 * torch.sin(2 * math.pi * (200 + 150 * i) * t)
        noise = 0.1 * torch.randn(channels, len(t), generator=generator, dtype=torch.float64)
        soundfile.write(folder / f"tone_{i}.wav", (tone + noise).T.numpy(), RATE, subtype="FLOAT")


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder / "train", 6)
    write_tones(folder / "validation", 2)
    write_tones(folder / "test", 3)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """Fifteen files of several lengths, layouts and rates, one of them broken, with metadata in the training split."""
    folder = tmp_path_factory.mktemp("sources")
    generator = torch.Generator().manual_seed(0)
    rows = ["file_name,label,duration_s"]
    for number in range(12):
        samples = [800, 2400, 2401, 5000][number % 4]
        rate = 16000 if number == 5 else 8000
        channels = 1 + number % 3 // 2
        split = "validation" if number > 9 else "train"
        path = folder / split / f"{number:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, 0.1 * torch.randn(channels, samples, generator=generator), rate)
        rows += [f"{split}/{number:02d}.wav,{number},0.5"] * (split == "train")
    (folder / "train" / "03b.wav").write_text("no audio")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def tiny_config(*, adversarial: bool = False, **trainer) -> RunConfig:
    layouts = (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE)
    model = AutoencoderConfig(
        AudioSpec(RATE, 2, layouts), 4, GenAEEncoderConfig.example(), VAEConfig(), GenAEDecoderConfig.example()
    )
    objective = AdversarialReconstructionConfig.example()
    if adversarial:
        objective = replace(objective, balancer=GradientBalancerConfig())
    else:
        objective = replace(objective, discriminator=None, weights={"stft": 1.0, "mel": 1.5})
    adamw = AdamWConfig(lr=1e-2, schedule=Cosine())
    settings = {"steps": 6, "log_every": 1, "evaluate_seconds": 1.0, "ema_decay": 0.9, "precision": "no", **trainer}
    return RunConfig(
        model=model,
        objective=objective,
        data=DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0),
        trainer=TrainerConfig(optimizers={"generator": adamw, "discriminator": adamw}, **settings),
    )


FAMILIES = ("reconstruction", "adversarial", "consistency", "quantization", "representation", "generation")
"""One run per objective, and reconstruction with a balancer and discriminators."""


def family_config(family: str, *, codec: Path | None = None, llm: Path | None = None, steps: int = 4) -> RunConfig:
    """Config of a run of a family; those on latents need a `codec`, and supervision by text needs `llm`."""

    def on_latents(model, objective, texts=()):
        adamw = AdamWConfig(lr=1e-3, schedule=Constant())
        trainer = TrainerConfig(optimizers={"generator": adamw, "discriminator": adamw}, precision="no")
        data = DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0, augmentation=None, texts=texts)
        return RunConfig(codec=str(codec), model=model, objective=objective, data=data, trainer=trainer)

    match family:
        case "reconstruction" | "adversarial":
            found = tiny_config(adversarial=family == "adversarial")
        case "staged":  # a stage per third of the run, and a random resolution per step
            adversarial = tiny_config(adversarial=True)
            losses = adversarial.objective.losses | {
                "stft": replace(MultiResolutionSTFTConfig.example(), resolutions_per_step=1)
            }
            stages = {"adversarial_from": 0.6, "discriminator_warmup": 0.3, "adversarial_ramp": 0.2}
            found = replace(adversarial, objective=replace(adversarial.objective, losses=losses, **stages))
        case "consistency":
            audio, decoder = AudioSpec(RATE, 2, (ChannelLayout.STEREO,)), ConsistencyDecoderConfig.example()
            parts = {"encoder": SummaryEncoderConfig.example(), "bottleneck": TanhConfig(), "decoder": decoder}
            radam = RAdamConfig(lr=1e-3, schedule=Constant())
            found = RunConfig(
                model=AutoencoderConfig(audio, 4, **parts),
                objective=ConsistencyTrainingConfig(),
                data=DataConfig(crop_seconds=192 / RATE, batch_size=4, num_workers=0),
                trainer=TrainerConfig(optimizers={"generator": radam}),
            )
        case "quantization":
            found = on_latents(ReBottleneckConfig.example(), LatentQuantizationConfig.example())
        case "representation" if llm is None:
            model = RepresentationModelConfig(CausalRepresentationConfig.example())
            found = on_latents(model, RepresentationSupervisionConfig.example())
        case "representation":
            adapter, taught = SwiGLUAdapterConfig.example(), {"rq": RQMTPConfig.example(), "llm": FrozenLLMConfig()}
            model = RepresentationModelConfig(CausalRepresentationConfig.example(), adapter, str(llm))
            objective = RepresentationSupervisionConfig(taught, dict.fromkeys(taught, 1.0))
            found = on_latents(model, objective, (TextTask("What?", "tone {label}"),))
        case _:
            found = on_latents(
                GeneratorConfig(FlowHeadConfig.example(), LlamaBackboneConfig.example()), LatentGenerationConfig()
            )
    quiet = ["trainer.evaluate_seconds=0.05", "trainer.statistics_seconds=0.1", "trainer.ema_decay=0.9"]
    return override(found, [*quiet, "trainer.log_every=1", f"trainer.steps={steps}"])


def write_llm(folder: Path) -> Path:
    """A byte-level language model of random weights."""
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = ByT5Tokenizer(extra_ids=0)
    ids = {"bos_token_id": None, "eos_token_id": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def of_python(*arguments: object, processes: int | None = None, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run Python with the modules of this folder on its path; with torchrun if `processes` is given."""
    here = Path(__file__).parent
    # Without the third, accelerate finds a single process on a machine without a GPU.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONSAFEPATH"] = "1"  # `conftest` is the one of this folder, not of the current one
    environment["PYTHONPATH"] = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    launch = [] if processes is None else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    command = [sys.executable, *map(str, launch), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)


@pytest.fixture(scope="session")
def python():
    return of_python


@pytest.fixture(scope="session")
def llm(tmp_path_factory) -> Path:
    return write_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def config():
    return tiny_config


@pytest.fixture(scope="session")
def family(run):
    """Config of a family on the codec of `run`."""

    def built(name: str, **settings) -> RunConfig:
        return family_config(name, codec=run / "model", **settings)

    return built


@pytest.fixture(scope="session")
def run(tones, tmp_path_factory) -> Path:
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config(), data=tones, output=folder, recipe="tiny", progress=False)
    return folder


@pytest.fixture
def codec(run) -> Autoencoder:
    """The model of `run`, loaded anew."""
    return Autoencoder.from_pretrained(run / "model")


@pytest.fixture
def float64():
    """Float64 by default, so that rounding does not depend on the processor."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def golden(float64, tones, tmp_path):
    """Compare the curves of a run of four steps with those stored in `golden/`, which a refactoring must not change.

    If numerics change on purpose, delete the file and run the test again. Versions of torch initialize differently, so
    the curves of another version are not compared.
    """

    def compare(file: str, config: RunConfig, keys: Sequence[str]) -> None:
        train(
            override(config, ["trainer.steps=4", "trainer.optimizers.generator.lr=0.001"]),
            data=tones,
            output=tmp_path / "run",
            progress=False,
        )
        lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "total" in line]
        curves = {key: [line[key] for line in lines] for key in keys}
        version = ".".join(torch.__version__.split(".")[:2])
        path = Path(__file__).parent / "golden" / file
        if not path.exists():
            path.write_text(json.dumps({"torch": version, "curves": curves}, indent=1) + "\n")
            pytest.fail(f"{file} was missing and has been written")
        stored = json.loads(path.read_text())
        if stored["torch"] != version:
            pytest.skip(f"the stored curves are from torch {stored['torch']}")
        expected = stored["curves"]
        assert list(expected) == list(curves)
        for key in keys:
            assert curves[key] == pytest.approx(expected[key], rel=1e-6), key

    return compare


@pytest.fixture
def ok(capsys):
    """Run a command that must succeed; returns its stdout and stderr."""

    def command(*arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    return command


@pytest.fixture
def refused(capsys, tmp_path):
    """Run a command that must fail with exit code 2, one line on stderr and no new files; returns the line."""

    def command(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.count("\n") == 1 and error.startswith("partita"), error
        assert sorted(tmp_path.rglob("*")) == before
        return error

    return command


# ------------------------------------------------------------------ codecs of other libraries


def oobleck(**changes):
    from diffusers import AutoencoderOobleck

    sizes = {"encoder_hidden_size": 8, "decoder_channels": 4, "decoder_input_channels": 4, "channel_multiples": [1, 2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's former weight norm
        return AutoencoderOobleck(**{"downsampling_ratios": [2, 16], "sampling_rate": RATE} | sizes | changes)


def dac(**changes):
    from transformers import DacConfig, DacModel

    sizes = {"encoder_hidden_size": 4, "decoder_hidden_size": 8, "n_codebooks": 3, "codebook_size": 16}
    rates = {"sampling_rate": RATE, "downsampling_ratios": [2, 15]}
    return DacModel(DacConfig(**{"codebook_dim": 3} | rates | sizes | changes))


def encodec(**changes):
    from transformers import EncodecConfig, EncodecModel

    sizes = {"hidden_size": 8, "num_filters": 4, "codebook_size": 16, "upsampling_ratios": [4, 2]}
    rates = {"sampling_rate": RATE, "target_bandwidths": [4.0, 8.0, 12.0]}  # one, two and three levels
    return EncodecModel(EncodecConfig(**sizes | rates | changes))


def encodec_in_chunks(**changes):
    """Chunks of 96 samples, 80 apart, 12 tokens each."""
    chunks = {"chunk_length_s": 0.012, "overlap": 1 / 6, "normalize": True, "audio_channels": 2}
    return encodec(**chunks | {"use_causal_conv": False, "norm_type": "time_group_norm"} | changes)


def mimi(**changes):
    from transformers import MimiConfig, MimiModel

    sizes = {"hidden_size": 16, "num_filters": 4, "codebook_size": 16, "codebook_dim": 8, "intermediate_size": 16}
    sizes |= {"vector_quantization_hidden_dimension": 8, "upsample_groups": 16, "num_attention_heads": 2}
    depth = {"num_quantizers": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "sliding_window": 3}
    return MimiModel(MimiConfig(**{"sampling_rate": RATE, "upsampling_ratios": [4, 2]} | sizes | depth | changes))


@torch.no_grad()
def build_foreign(name: str, **changes):
    """A model with all parts active: by default, codebooks are zero and signals fade in the layers."""
    builders = {
        "oobleck": oobleck,
        "dac": dac,
        "encodec": encodec,
        "encodec in chunks": encodec_in_chunks,
        "mimi": mimi,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = builders[name](**changes)
        for key, tensor in model.state_dict().items():
            if key.endswith(("embed", "embed_sum", "codebook.weight")):
                tensor.normal_()
            elif key.endswith("layer_scale.scale"):
                tensor.fill_(0.5)
            elif key.endswith("weight.original0"):
                tensor.mul_(2)
            elif name == "dac" and key.endswith("weight") and tensor.dim() == 3:
                tensor.mul_(8)
    return model.eval()


@pytest.fixture(scope="session")
def foreign():
    """Build AutoencoderOobleck, DacModel, EncodecModel or MimiModel with fixed weights."""
    return build_foreign
