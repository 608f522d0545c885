"""Scripts as users write them: they run, and two strict type checkers find no error in them."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

HEAD = "import torch\n\ntorch.manual_seed(0)\n"
SCRIPTS = {
    "vae": """
from partita_bottlenecks import VAE
vae = VAE(dim=8)
output = vae(torch.randn(2, 16, 5))
assert output.values.shape == (2, 8, 5) and set(output.losses) == {"kl"}
""",
    "residual_vq": """
from partita_quantizers import ResidualVQ
quantizer = ResidualVQ(dim=64, num_quantizers=8, codebook_size=1024).eval()
codes = quantizer.encode_codes(torch.randn(2, 64, 5))
assert codes.shape == (2, 8, 5) and quantizer.codes_to_values(codes).shape == (2, 64, 5)
""",
    "fsq": """
from partita_quantizers import FSQ
quantizer = FSQ(levels=(8, 5, 5, 5))
assert (quantizer.dim, quantizer.codebook_sizes) == (4, (1000,))
assert quantizer(torch.randn(2, 4, 5)).values.shape == (2, 4, 5)
""",
    "stft_loss": """
from partita_losses import MultiResolutionSTFT
loss = MultiResolutionSTFT(sample_rate=24000)
assert loss(torch.randn(2, 1, 4800), torch.randn(2, 1, 4800)).shape == (2,)
""",
    "mel_loss": """
from partita_losses import MultiScaleMel
loss = MultiScaleMel(sample_rate=24000)
assert float(loss(torch.ones(1, 1, 4800), torch.ones(1, 1, 4800))) == 0
""",
    "balancer": """
from partita_losses import GradientBalancer
samples = torch.randn(2, 1, 100, requires_grad=True)
losses = {"l1": samples.abs().mean(), "l2": samples.square().mean()}
total = GradientBalancer({"l1": 1.0, "l2": 2.0})(losses, samples)
(gradient,) = torch.autograd.grad(total, samples)
assert gradient.shape == samples.shape
""",
    "audio_specs": """
from partita_core import AudioSpec, ChannelLayout
assert AudioSpec(24_000) == AudioSpec(24_000, 1, (ChannelLayout.MONO,))
assert AudioSpec(44_100, layouts=("mono", "stereo")).channels == 2
assert AudioSpec(44_100, layouts=ChannelLayout.STEREO) == AudioSpec(44_100, 2)
""",
    "autoencoder": """
from partita_bottlenecks import NoiseRegularized
from partita_core import AudioSpec, Autoencoder, LatentSpec
from partita_decoders import OobleckDecoder
from partita_encoders import GenAEEncoder
audio = AudioSpec(16_000)
bottleneck = NoiseRegularized(16)
encoder = GenAEEncoder(
    bottleneck.in_dim, audio, strides=(4, 8), channels=(8, 16, 16), attention_layers=1, mel_stage=0, heads=1, head_dim=8
)
decoder = OobleckDecoder(LatentSpec(16, 16_000, encoder.hop), audio, strides=(4, 8), channels=(8, 8, 16))
model = Autoencoder(encoder, bottleneck, decoder).eval()
latents = model.encode(torch.randn(1, 1, 1000))
assert latents.values is not None and latents.values.shape == (1, 16, 32)
assert model.decode(latents).shape == (1, 1, 1000)
""",
    "discriminators": """
from partita_losses import MultiPeriodDiscriminators, hinge_discriminator_loss
discriminators = MultiPeriodDiscriminators(channels=2)
real, fake = discriminators(torch.randn(1, 1, 2000)), discriminators(torch.randn(1, 1, 2000))
assert hinge_discriminator_loss(real, fake).isfinite()
""",
    "configs": """
from partita_bottlenecks import SoftNormConfig
from partita_core import AudioSpec, AutoencoderConfig
from partita_decoders import GenAEDecoderConfig
from partita_encoders import GenAEEncoderConfig
small = GenAEEncoderConfig(
    strides=(4, 8), channels=(8, 16, 16), attention_layers=1, mel_stage=0, heads=1, head_dim=8
)
back = GenAEDecoderConfig(strides=(4, 8), channels=(8, 16, 16), attention_layers=1, heads=1, head_dim=8)
model = AutoencoderConfig(AudioSpec(16_000), 16, small, SoftNormConfig(), back).build().eval()
assert model.decode(model.encode(torch.randn(1, 1, 100))).shape == (1, 1, 100)
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_user_scripts_run_as_written(name):
    exec(compile(HEAD + SCRIPTS[name], name, "exec"), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for name, script in SCRIPTS.items():
        (folder / f"{name}.py").write_text(HEAD + script)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
def test_pyright_strict_finds_no_error_in_user_scripts(folder):
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = [sys.executable, "-m", "pyright", "-p", folder, "--pythonpath", sys.executable, "--outputjson"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    # Parts of torch are untyped, which causes these reports.
    rules = {"reportUnknownMemberType", "reportUnknownVariableType", "reportUnknownArgumentType"}
    errors = [one for one in found["generalDiagnostics"] if one["severity"] == "error" and one.get("rule") not in rules]
    assert found["summary"]["filesAnalyzed"] == len(SCRIPTS) and errors == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_strict_finds_no_error_in_user_scripts(folder):
    # Only errors in the scripts count, not those in torch and these packages.
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary"]
    found = subprocess.run([*command, *sorted(folder.glob("*.py"))], capture_output=True, text=True, cwd=folder)
    assert (found.stdout, found.returncode) == ("", 0)
