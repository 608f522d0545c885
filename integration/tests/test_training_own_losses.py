"""Stages of training: the losses of the model's own parts alone, and continuous latents before codes."""

from dataclasses import replace

import pytest
import torch
from partita.objectives import AdversarialReconstructionConfig, TrainState
from partita_bottlenecks import IdentityConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout, PartitaError
from partita_decoders import OobleckDecoderConfig, SourceFilterDecoderConfig
from partita_encoders import FrameEncoderConfig
from partita_losses import ComplexSTFTDiscriminatorsConfig
from partita_quantizers import SplitConfig

AUDIO = AudioSpec(16_000, 1, (ChannelLayout.MONO,))
OBJECTIVE = replace(AdversarialReconstructionConfig.example(), discriminator=None, losses_from=0.4)
OBJECTIVE = replace(OBJECTIVE, weights={"stft": 1.0, "mel": 1.5})


def model():
    torch.manual_seed(0)
    encoder = FrameEncoderConfig(width=8, inner=8, blocks=1, pitch=True)
    decoder = SourceFilterDecoderConfig(width=8, inner=8, blocks=1, nodes=8, likelihood_weight=0.5)
    return AutoencoderConfig(AUDIO, 4, encoder, IdentityConfig(), decoder).build()


def batch(samples: int = 3200):
    layout = torch.zeros(2, dtype=torch.int64)
    audio = 0.1 * torch.randn(2, 1, samples, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([samples, samples // 2])
    return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": layout}


def test_first_stage_has_the_own_losses_only_and_does_not_decode(monkeypatch):
    it = OBJECTIVE.build(model=model().train())
    decoded = []
    synthesize = type(it.model.decoder)._synthesize
    monkeypatch.setattr(
        type(it.model.decoder), "_synthesize", lambda self, parts: decoded.append(1) or synthesize(self, parts)
    )
    first = it(batch(), TrainState(39, 100), "generator")
    assert decoded == [] and first.samples is None
    assert set(first.losses) == {"likelihood"}
    torch.testing.assert_close(first.total.detach(), 0.5 * first.losses["likelihood"])
    first.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in it.model.parameters())
    second = it(batch(), TrainState(40, 100), "generator")
    assert decoded == [1] and second.samples is not None and second.samples.shape == (2, 1, 3200)
    assert set(second.losses) == {"likelihood", "stft", "mel"}


def test_own_losses_equal_those_of_forward():
    it = model().train()
    inputs = batch()
    results = []
    for call in (it, it.own_losses):
        torch.manual_seed(2)  # the phase at which pulses start
        output = call(inputs["audio"], lengths=inputs["audio_lengths"])
        results.append((output if call == it.own_losses else output[1]).losses["likelihood"])
    torch.testing.assert_close(results[0], results[1])


def test_losses_from_needs_a_decoder_with_losses_and_no_discriminator():
    with pytest.raises(PartitaError, match=r"losses_from is 0\.4.* OobleckDecoder"):
        OBJECTIVE.build(
            model=AutoencoderConfig(
                AUDIO, 4, FrameEncoderConfig(hop=24, window=0.02), IdentityConfig(), OobleckDecoderConfig.example()
            ).build()
        )
    weights = OBJECTIVE.weights | {"adversarial": 0.1, "feature_matching": 5.0}
    adversarial = replace(OBJECTIVE, discriminator=ComplexSTFTDiscriminatorsConfig.example(), weights=weights)
    with pytest.raises(PartitaError, match=r"losses_from is 0\.4"):
        adversarial.build(model=model())


def test_decoder_gets_continuous_latents_before_quantize_from(monkeypatch):
    torch.manual_seed(0)
    encoder = FrameEncoderConfig(width=8, inner=8, blocks=1, pitch=True)
    decoder = SourceFilterDecoderConfig(width=8, inner=8, blocks=1, nodes=8)
    config = AutoencoderConfig(AUDIO, 6, encoder, SplitConfig.example(), decoder)
    it = replace(OBJECTIVE, quantize_from=0.6).build(model=config.build().train())
    given, hidden = [], []
    it.model.encoder.register_forward_hook(lambda part, inputs, output: hidden.append(output.detach()))
    for name in ("losses", "reconstruct"):
        method = getattr(it.model.decoder, name)
        monkeypatch.setattr(
            it.model.decoder, name, lambda values, *rest, method=method: given.append(values) or method(values, *rest)
        )
    codebook = it.model.bottleneck.rest.levels[0].codebook.embed.clone()
    for step in (39, 59):
        out = it(batch(), TrainState(step, 100), "generator")
        torch.testing.assert_close(given[-1].detach(), hidden[-1])
        assert "rest_commitment" in out.losses
    assert not torch.equal(it.model.bottleneck.rest.levels[0].codebook.embed, codebook)
    it(batch(), TrainState(60, 100), "generator")
    assert float((given[-1].detach() - hidden[-1]).abs().max()) > 0.01


def test_likelihood_learns_the_envelope_of_a_voice():
    """The distance to the spectra of one voice falls within 40 steps."""
    it = OBJECTIVE.build(model=model().train())
    phase = 2 * torch.pi * 140 * torch.arange(3200) / 16_000
    voiced = 0.05 * sum((h * phase).cos() / h for h in range(1, 12))  # pyright: ignore
    data = batch() | {"audio": voiced.expand(2, 1, -1)}  # pyright: ignore
    optimizer = torch.optim.Adam(it.model.parameters(), lr=2e-2)
    values = []
    for _ in range(40):
        out = it(data, TrainState(0, 100), "generator")
        optimizer.zero_grad()
        out.total.backward()
        optimizer.step()
        values.append(float(out.losses["likelihood"]))
    assert values[-1] < 0.6 * values[0]
