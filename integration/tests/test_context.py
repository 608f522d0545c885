import json

import pytest
from partita.model_profile import DAC_FRAME_RATE, ContextBudget, context_seconds


@pytest.mark.parametrize(
    ("what", "token_rate", "seconds"),
    [
        ("GenAE", 13.125, 832),
        ("CoDiCodec", 11, 993),
        ("Stable Audio Open", 44_100 / 2048, 507),
        ("GenAE at 36.75 Hz", 36.75, 297),
        ("EnCodec at 75 Hz", 75, 146),
        ("EnCodec at 150 Hz", 150, 73),
    ],
)
def test_context_seconds_of_published_models(what, token_rate, seconds):
    assert round(context_seconds(token_rate)) == seconds


def test_genae_context_is_6_5_times_dac():
    """832.2 s over 126.8 s, which the paper rounds down."""
    ratio = context_seconds(13.125) / context_seconds(DAC_FRAME_RATE)
    assert ratio == pytest.approx(3360 / 512) and int(10 * ratio) / 10 == 6.5
    assert context_seconds(DAC_FRAME_RATE) == pytest.approx(126.8, abs=0.05)


def test_context_budget_scales():
    assert ContextBudget().tokens == pytest.approx(10_922.67, abs=0.01)
    assert ContextBudget(batch_size=4).tokens == 2 * ContextBudget().tokens
    assert ContextBudget(memory=80 * 2**30, bytes_per_scalar=4).tokens == ContextBudget().tokens
    assert context_seconds(10, ContextBudget(scalars_per_token=12 * 8 * 1024)) == 2 * context_seconds(10)


@pytest.mark.slow
def test_info_prints_the_context_estimate(ok):
    out, _ = ok("info", "genae_tiny", "--context")
    assert "832 s" in out and "6.56 x the 127 s of DAC" in out
    assert "estimate" in out and "40 GiB" in out and "80%" in out
    assert "a token is one latent frame" in out
    assert "estimate" not in ok("info", "genae_tiny")[0]
    found = json.loads(ok("info", "genae_tiny", "--context", "--json")[0])["context_estimate"]
    assert found["tokens_per_second"] == 13.125 and round(found["seconds"]) == 832
    assert found["budget"]["batch_size"] == 8


def test_context_counts_all_tokens_per_frame(ok, monkeypatch):
    from partita.recipes import profile

    plain = profile.recipe_profile
    monkeypatch.setattr(profile, "recipe_profile", lambda config: plain(config) | {"tokens_per_frame": 8})
    out, _ = ok("info", "genae_tiny", "--context")
    assert "104 s" in out and "one of the 8 latent vectors of a frame" in out
