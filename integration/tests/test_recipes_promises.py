"""Properties of every recipe: the size in its docstring, batches that processes can share, and a warm-up."""

import re

import pytest
import torch
from partita import recipes
from partita.data.loader import share_of
from partita.objectives import TrainState
from partita_core import Autoencoder, override
from torch._subclasses.fake_tensor import FakeTensorMode

SIZED = sorted(recipes.RECIPES)
BASES = ["codicodec_base", "f3_48khz", "f3_base", "genae_36hz", "genae_base", "music2latent2_base", "oobleck_base"]
NUMBER = r"(\d+(?:\.\d+)?) M"


def count(module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def promised(text: str) -> list[str]:
    """The numbers of "35.4 M + 35.1 M parameters" or "147 M parameters"."""
    found = re.search(rf"{NUMBER}(?: \+ {NUMBER})? parameters", text)
    assert found, text
    return [number for number in found.groups() if number]


def rounded_alike(value: float, number: str) -> bool:
    digits = len(number.partition(".")[2])
    return abs(value - float(number)) <= 0.5001 * 10**-digits


def check_warm_up(config) -> None:
    for phase, optimizer in config.trainer.optimizers.items():
        if phase == "discriminator" and config.objective.discriminator is None:
            continue  # not used
        assert 0 < optimizer.lr_at(TrainState(0, config.trainer.steps)) <= 0.02 * optimizer.lr, phase
        assert optimizer.schedule.warmup_steps >= 0.001 * config.trainer.steps, phase


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """A codec with latents of 64 dimensions at 25 Hz, and its folder."""
    folder = tmp_path_factory.mktemp("promises") / "codec"
    recipes.f3_tiny().model.build().eval().save_pretrained(folder)
    return Autoencoder.from_pretrained(folder), str(folder)


@pytest.mark.parametrize("name", sorted(recipes.CODEC_RECIPES))
def test_docstring_has_the_number_of_parameters_on_a_codec(name, codec):
    config = recipes.recipe(name, codec[1])
    with torch.device("meta"):
        model = config.model.build(dim=64) if name.startswith("vq") else config.model.build(codec=codec[0])
    (number,) = promised(recipes.CODEC_RECIPES[name].__doc__ or "")
    assert rounded_alike(count(model), number), f"{name}: {count(model):.2f} M, its docstring has {number} M"


@pytest.mark.parametrize("name", sorted(recipes.CODEC_RECIPES))
def test_recipes_on_a_codec_warm_up_and_share_their_batches(name, codec):
    config = recipes.recipe(name, codec[1])
    check_warm_up(config)
    assert config.data.batch_size % (8 if name.endswith("base") else 1) == 0


@pytest.mark.parametrize("name", SIZED)
def test_docstring_has_the_number_of_parameters(name):
    """Two numbers are those of encoder and decoder, one is that of the model."""
    with FakeTensorMode():
        model = recipes.recipe(name).model.build()
    parts = (
        [model.encoder, model.decoder] if len(promised(doc := recipes.RECIPES[name].__doc__ or "")) == 2 else [model]
    )
    for part, number in zip(parts, promised(doc), strict=True):
        assert rounded_alike(count(part), number), f"{name}: {count(part):.2f} M, its docstring has {number} M"


def test_numbers_are_compared_to_their_last_digit():
    assert promised("Of 35.4 M + 35.1 M parameters.") == ["35.4", "35.1"] and promised("15 M parameters") == ["15"]
    assert rounded_alike(146.95, "147") and not rounded_alike(146.95, "155") and not rounded_alike(35.46, "35.4")


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("name", BASES)
def test_batches_of_base_recipes_can_be_shared_by_8_processes(name, processes):
    batch = recipes.recipe(name).data.batch_size
    assert share_of(batch, processes) * processes == batch


@pytest.mark.parametrize("name", SIZED)
def test_learning_rate_has_a_warm_up(name):
    check_warm_up(recipes.recipe(name))


def steps_of_kl(warmup_steps: int) -> list[float]:
    """The KL before each of three steps of `genae_base`, at reduced widths and without discriminators."""
    widths = "attention_dim=32 attention_layers=1 heads=1 head_dim=32 dilations=[1]".split()
    changes = ["objective.discriminator=none", 'objective.weights={"stft":1.0,"mel":1.5}']
    changes += [f"model.{part}.{width}" for part in ("encoder", "decoder") for width in widths]
    changes += ["model.encoder.channels=[16,16,32,64,256]", "model.decoder.channels=[256,32,16,16,8]"]
    config = override(recipes.genae_base(), changes)
    settings = override(
        config, [f"trainer.optimizers.generator.schedule.warmup_steps={warmup_steps}"]
    ).trainer.optimizers
    torch.manual_seed(0)
    objective = config.objective.build(model=config.model.build().train())
    optimizer = settings["generator"].build(groups=objective.parameter_groups("generator"))
    generator = torch.Generator().manual_seed(1)
    samples, layout = 8 * objective.crop_multiple, torch.ones(1, dtype=torch.int64)
    batch = {"audio": 0.1 * torch.randn(1, 2, samples, generator=generator), "layout": layout, "target_layout": layout}
    batch["audio_lengths"] = torch.tensor([samples])
    found = []
    for step in range(3):
        output = objective(batch, TrainState(step, 1_000_000), "generator")
        found.append(float(output.losses["kl"]))
        optimizer.zero_grad()
        output.total.backward()
        for group in optimizer.param_groups:
            group["lr"] = settings["generator"].lr_at(TrainState(step, 1_000_000))
        optimizer.step()
    return found


def test_first_steps_keep_the_scale_of_the_latents():
    warmed = steps_of_kl(recipes.genae_base().trainer.optimizers["generator"].schedule.warmup_steps)
    assert max(warmed) < 1.1 * warmed[0]
    assert steps_of_kl(0)[-1] > 1.5 * warmed[0]  # without the warm-up
