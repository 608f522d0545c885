import copy
import subprocess
import sys

import pytest
import torch
from partita_core import PartitaError
from partita_quantizers import ResidualVQ, ResidualVQConfig
from partita_quantizers._codebook import DeadCodes

PLAIN = ResidualVQConfig(num_quantizers=4, codebook_size=32, codebook_dim=None, quantizer_dropout=0.0)
FACTORIZED = ResidualVQConfig(num_quantizers=4, codebook_size=32, codebook_dim=4, quantizer_dropout=0.0)


def latents(batch=4, tokens=60, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, tokens, generator=generator)


def built(config, dim=8):
    torch.manual_seed(0)
    return config.build(dim=dim)


def test_codes_and_values_match_the_library():
    from vector_quantize_pytorch import ResidualVQ as Reference

    quantizer = built(PLAIN)
    quantizer.initialize(latents())
    reference = Reference(dim=8, num_quantizers=4, codebook_size=32).eval()
    for level, theirs in zip(quantizer.levels, reference.layers):
        theirs._codebook.embed.copy_(level.codebook.embed)
    hidden = latents(seed=1)
    values, codes, _ = reference(hidden.transpose(1, 2))
    out = quantizer.eval()(hidden)
    assert torch.equal(out.codes, codes.transpose(1, 2))
    torch.testing.assert_close(out.values, values.transpose(1, 2))


def test_codes_are_the_nearest():
    quantizer = built(FACTORIZED)
    quantizer.initialize(latents())
    hidden = latents(seed=1)
    level = quantizer.levels[0]
    encoded = level.encode(hidden.transpose(1, 2))
    distances = (encoded[:, :, None] - level.table()).square().sum(-1)
    assert torch.equal(quantizer.encode_codes(hidden)[:, 0], distances.argmin(-1))


@pytest.mark.parametrize("config", [PLAIN, FACTORIZED], ids=["plain", "factorized"])
def test_training_and_eval_agree_on_codes(config):
    quantizer = built(config)
    quantizer.initialize(latents())
    hidden = latents(seed=1)
    before = quantizer.encode_codes(hidden)
    assert torch.equal(quantizer(hidden).codes, before)


def test_gradient_without_projections_is_straight_through():
    quantizer = built(PLAIN)
    hidden = latents().requires_grad_()
    weights = torch.randn(hidden.shape)
    (quantizer(hidden).values * weights).sum().backward()
    torch.testing.assert_close(hidden.grad, weights)  # once, not once per level


def test_every_level_reduces_the_error_before_training():
    quantizer = ResidualVQConfig(num_quantizers=6, codebook_size=64, codebook_dim=4).build(dim=8).eval()
    torch.manual_seed(0)
    hidden = latents(tokens=200)
    quantizer.initialize(hidden)
    codes = quantizer.encode_codes(hidden)
    errors = []
    for count in range(1, 7):
        kept = codes.clone()
        kept[:, count:] = -1
        errors.append((quantizer.codes_to_values(kept) - hidden).square().mean().item())
    assert all(after < before for before, after in zip(errors, errors[1:]))
    assert errors[-1] < 0.35 * errors[0]


def test_training_reduces_the_error_and_uses_the_codes():
    torch.manual_seed(0)
    quantizer = built(PLAIN)
    first = quantizer(latents(seed=0)).metrics["relative_error"].item()
    for step in range(30):
        quantizer(latents(seed=step))
    quantizer.eval()
    metrics = quantizer(latents(seed=99)).metrics
    assert metrics["relative_error"] < 0.35 * first
    assert metrics["relative_error"] < 0.2
    assert all(metrics[f"usage_{level}"] > 0.8 for level in range(4))
    assert all(20 < metrics[f"perplexity_{level}"] <= 32 for level in range(4))


def test_projections_learn_from_values_and_commitment():
    quantizer = built(FACTORIZED)
    out = quantizer(latents())
    (out.values.square().sum() + out.losses["commitment"]).backward()
    assert len(list(quantizer.parameters())) == 4 * 4
    assert all(parameter.grad.norm() > 0 for parameter in quantizer.parameters())


def test_a_quantizer_without_projections_has_no_parameters():
    assert list(built(PLAIN).parameters()) == []


def test_commitment_is_the_sum_of_square_distances_to_the_codes():
    quantizer = built(PLAIN)
    quantizer.initialize(latents())
    quantizer.eval()
    hidden = latents(seed=1).requires_grad_()
    out = quantizer(hidden)
    codes = quantizer.encode_codes(hidden)
    expected, residual = 0, hidden.detach().transpose(1, 2)
    for level, code in zip(quantizer.levels, codes.unbind(1)):
        residual = residual - level.table()[code]
        expected = expected + residual.square().mean()
    torch.testing.assert_close(out.losses["commitment"], expected)
    assert quantizer.loss_weights == {"commitment": 0.25}


def test_quantizer_dropout_keeps_the_first_levels_of_each_example():
    config = ResidualVQConfig(num_quantizers=4, codebook_size=8, codebook_dim=None, quantizer_dropout=0.5)
    quantizer = built(config)
    hidden = latents(batch=2000, tokens=2)
    before = copy.deepcopy(quantizer)
    out = quantizer(hidden)
    kept = (out.codes >= 0).sum(1)
    assert torch.equal(kept[:, 0], kept[:, 1])
    for count, expected in {1: 0.125, 2: 0.125, 3: 0.125, 4: 0.625}.items():
        share = (kept[:, 0] == count).float().mean().item()
        assert abs(share - expected) < 0.04
    prefix = torch.arange(4)[:, None] < kept[:, :1, None]
    assert torch.equal(out.codes >= 0, prefix.expand(-1, -1, 2))
    torch.testing.assert_close(out.values, before.codes_to_values(out.codes))


def test_dropped_levels_have_no_commitment_loss():
    config = ResidualVQConfig(num_quantizers=2, codebook_size=8, codebook_dim=None, quantizer_dropout=1.0)
    quantizer = built(config)
    hidden = latents(batch=64).requires_grad_()
    out = quantizer(hidden)
    out.losses["commitment"].backward()
    once = (out.codes[:, 1, 0] == -1).nonzero()[0, 0]
    expected = 2 * (hidden - out.values)[once] / hidden.numel()
    torch.testing.assert_close(hidden.grad[once], expected.detach())


def test_initialize_is_reproducible_and_uses_every_code():
    first, second = built(FACTORIZED), built(FACTORIZED)
    for quantizer in (first, second):
        torch.manual_seed(5)
        quantizer.initialize(latents())
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers()))
    metrics = first.eval()(latents()).metrics
    assert metrics["usage_0"] == 1
    # The first step of training moves the codes only a little.
    before = first.levels[0].table().clone()
    first.train()(latents(seed=1))
    assert (first.levels[0].table() - before).abs().max() < 0.1


def test_initialize_needs_a_token_per_code():
    with pytest.raises(PartitaError, match="31 .*32"):
        built(PLAIN).initialize(latents(batch=1, tokens=31))


def test_normalized_codes_have_unit_length():
    config = ResidualVQConfig(num_quantizers=2, codebook_size=16, codebook_dim=4, normalize=True)
    quantizer = built(config)
    for step in range(3):
        quantizer(latents(seed=step))
    for level in quantizer.levels:
        torch.testing.assert_close(level.table().norm(dim=1), torch.ones(16))
    quantizer.eval()
    first = quantizer.encode_codes(latents(), 1)  # only the direction is looked up
    assert torch.equal(first, quantizer.encode_codes(7 * latents(), 1))


def test_invalid_settings():
    with pytest.raises(PartitaError, match="normalize.*codebook_dim"):
        ResidualVQ(8, codebook_dim=None, normalize=True)
    with pytest.raises(PartitaError, match="codebook_size is 0"):
        ResidualVQConfig(codebook_size=0)
    with pytest.raises(PartitaError, match="quantizer_dropout is 1.5"):
        ResidualVQConfig(quantizer_dropout=1.5)


def test_vector_quantize_pytorch_is_imported_lazily():
    code = (
        "import sys, partita_quantizers; partita_quantizers.FSQConfig().build(dim=4);"
        "assert 'vector_quantize_pytorch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def steps_of_training(quantizer, batches):
    """Number of codes that were replaced, per step."""
    counts = []
    for hidden in batches:
        before = quantizer.levels[0].dead.patience.clone()
        embed, used = quantizer.levels[0].table().clone(), quantizer(hidden).codes[:, 0].unique()
        moved = (quantizer.levels[0].table() != embed).any(1)
        moved[used] = False
        counts.append(int(moved.sum()))
        assert (quantizer.levels[0].dead.patience >= before).all()
    return counts


def few_tokens(kinds, steps):
    """Batches of 4 tokens, each token one of `kinds` vectors."""
    vectors = latents(1, kinds, 8, seed=7)
    generator = torch.Generator().manual_seed(3)
    return [vectors[..., torch.randint(kinds, (4,), generator=generator)] for _ in range(steps)]


def one_level(dead_after):
    config = ResidualVQConfig(1, 64, None, quantizer_dropout=0.0, dead_after=dead_after)
    return built(config)


def test_unneeded_codes_are_replaced_less_and_less_often():
    counts = steps_of_training(one_level(dead_after=5.0), few_tokens(kinds=16, steps=500))
    # The first batches replace every code; from then on the patience is 80 steps, 160, 320.
    assert sum(counts[:30]) >= 48
    assert sum(counts[30:80]) == 0
    assert sum(counts) <= 64 * 4
    assert sum(counts[300:]) <= 64  # fewer than one per code in 200 steps


def test_codes_in_use_are_never_replaced():
    quantizer = one_level(dead_after=20.0)  # 320 steps, in which each vector occurs 20 times
    quantizer.initialize(latents(1, 64, 8, seed=7))
    assert sum(steps_of_training(quantizer, few_tokens(kinds=64, steps=350))) == 0


def test_patience_is_counted_in_tokens():
    small, large = (DeadCodes(4, after=10.0) for _ in range(2))
    for dead in (small, large):
        dead.start()
    one = torch.tensor([2.0, 2.0, 4.0, 0.0])  # uniform use gives each 2
    first = [next(i for i in range(1, 99) if len(dead.find(n * one, 4))) for dead, n in ((small, 1), (large, 3))]
    assert first == [6, 2]  # after more than 10 tokens
    again = next(i for i in range(1, 99) if len(small.find(one, 4)))
    assert again == 11  # and then after more than 20


def test_replaced_codes_are_limited_to_the_available_vectors():
    dead = DeadCodes(8, after=10.0)
    assert dead.find(torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0]), 3).tolist() == [1, 2, 3]
    assert dead.find(torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0]), 3).tolist() == [4, 5, 6]
    assert DeadCodes(8, after=0.0).find(torch.zeros(8), 3).tolist() == []


def test_codes_without_tokens_are_unchanged():
    config = ResidualVQConfig(num_quantizers=1, codebook_size=32, codebook_dim=None, decay=0.5, dead_after=0)
    quantizer = built(config)
    before = quantizer.levels[0].table().clone()
    used = torch.cat([quantizer(latents(1, 2, seed=5)).codes.unique() for _ in range(40)]).unique()
    unused = [code for code in range(32) if code not in used]
    assert 0 < len(unused) < 32
    assert torch.equal(quantizer.levels[0].table()[unused], before[unused])


def test_nonfinite_batch_does_not_change_the_codes():
    quantizer = built(FACTORIZED)
    quantizer.initialize(latents())
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(torch.full((2, 8, 5), torch.nan))
    for name, tensor in quantizer.state_dict().items():
        if not name.endswith(("cluster_size", "embed_avg")):  # these decay by the same factor
            torch.testing.assert_close(tensor, before[name])
