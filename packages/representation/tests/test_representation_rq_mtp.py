import math

import pytest
import torch
from partita_core import LatentSpec, PartitaError
from partita_representation import (
    RQMTP,
    CausalRepresentation,
    RandomProjectionQuantizer,
    SupervisionInput,
)
from partita_testing.dummies import NeighboringConfig
from torch.nn import functional as F

SPEC = LatentSpec(8, 24_000, 960)


def quantizer(**changes):
    settings = {"codes": 256, "code_dim": 16, "codebooks": 1, "seed": 0} | changes
    return RandomProjectionQuantizer(settings.pop("dim", 64), **settings)


def supervision(spec=SPEC, **settings):
    torch.manual_seed(0)
    encoder = CausalRepresentation(spec, width=16, layers=1, heads=2, mlp_ratio=2)
    return encoder, RQMTP(spec, encoder, **{"codes": 32, "code_dim": 4, "whitening_steps": 0} | settings)


def inputs(encoder, values, frames=None):
    count = values.shape[-1] // encoder.tokens_per_frame
    frames = torch.full((len(values),), count) if frames is None else torch.tensor(frames)
    return SupervisionInput(encoder(values), values, frames)


def latents_of(task, codes):
    """Latents `(1, 8, frames)` that the quantizer maps to the given codes."""
    candidates = torch.randn(20_000, 8)
    found = task.quantizer(candidates)[:, 0]
    return torch.stack([candidates[(found == code).nonzero()[0, 0]] for code in codes], dim=1)[None]


# ------------------------------------------------------------------ the quantizer


def test_code_is_the_entry_of_largest_cosine():
    it = quantizer(codebooks=3)
    x = 3 + 5 * torch.randn(2, 7, 64)
    normed = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    projected = normed @ it.projection
    for book in range(3):
        cosine = F.cosine_similarity(projected.unsqueeze(-2), it.codebooks[book], dim=-1)
        assert torch.equal(it(x)[..., book], cosine.argmax(-1))
    assert it(x).shape == (2, 7, 3) and it(x).dtype == torch.int64
    torch.testing.assert_close(it.codebooks.norm(dim=-1), torch.ones(3, 256))
    assert it.projection.abs().max() <= (6 / 80) ** 0.5 and it.projection.abs().max() > 0.95 * (6 / 80) ** 0.5
    assert abs(it.projection.std() - (6 / 80 / 3) ** 0.5) < 0.01


def test_labels_depend_on_the_seed_only():
    torch.manual_seed(1)
    one = quantizer()
    torch.manual_seed(2)
    other, third = quantizer(), quantizer(seed=1)
    x = torch.randn(500, 64)
    assert torch.equal(one(x), other(x)) and (one(x) != third(x)).float().mean() > 0.9
    assert not list(one.parameters()) and set(one.state_dict()) == {"projection", "codebooks"}
    third.load_state_dict(one.state_dict())
    assert torch.equal(one(x), third(x))
    # The draw is the same on every machine.
    assert quantizer(dim=4, code_dim=2).projection[0].tolist() == pytest.approx([0.9401060, 0.4156397], abs=1e-6)


def test_labels_are_invariant_to_scale_offset_and_autocast():
    it = quantizer()
    x = torch.randn(500, 64)
    assert torch.equal(it(x), it(20 * x + 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(it(x), quantizer()(x)) and torch.equal(it(x), it(x.clone()))
    assert (it.double()(x.double()) == quantizer()(x)).float().mean() > 0.99


@pytest.mark.parametrize("codes", [256, 1024])
def test_most_codes_are_used_on_gaussian_noise(codes):
    """More than half of the codes are used, even if the channels have very different scales."""
    torch.manual_seed(0)
    spread = torch.linspace(-1, 1, 64).exp()
    for x in (torch.randn(20_000, 64), torch.randn(20_000, 64) * spread):
        counts = quantizer(codes=codes)(x).flatten().bincount(minlength=codes)
        assert (counts > 0).float().mean() > 0.5
        share = counts[counts > 0] / counts.sum()
        assert float((-share * share.log()).sum().exp()) > 0.25 * codes


# ------------------------------------------------------------------ loss and metrics


def by_definition(task, given):
    labels = task.quantizer(given.values.mT)
    logits = task.heads(given.features).unflatten(-1, task.shape)
    terms = []
    for k in range(1, task.offsets + 1):
        entropies = [
            F.cross_entropy(logits[i, t, k - 1, c], labels[i, t + k, c])
            for i in range(len(labels))
            for t in range(int(given.frames[i]) - k)
            for c in range(labels.shape[-1])
        ]
        terms.append(torch.stack(entropies).mean() if entropies else torch.zeros(()))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("settings", [{}, {"codebooks": 3, "offsets": 2}, {"offsets": 12}])
@pytest.mark.parametrize("frames", [None, [10, 4, 1]])
def test_loss_is_the_mean_over_offsets_of_the_mean_over_frames(settings, frames):
    encoder, task = supervision(**settings)
    given = inputs(encoder, torch.randn(3, 8, 10), frames)
    torch.testing.assert_close(task(given).loss, by_definition(task, given))


def test_padding_has_no_effect():
    encoder, task = supervision()
    values = torch.randn(3, 8, 10)
    spoiled = values.clone()
    spoiled[1, :, 4:] = 100
    spoiled[2, :, 7:] = -3
    found = [task.eval()(inputs(encoder, x, [10, 4, 7])) for x in (values, spoiled)]
    torch.testing.assert_close(found[0].loss, found[1].loss, rtol=1e-6, atol=0)
    assert found[0].metrics == found[1].metrics
    longer = F.pad(values, (0, 5))
    torch.testing.assert_close(task(inputs(encoder, longer, [10, 4, 7])).loss, found[0].loss, rtol=1e-6, atol=0)


def test_stacked_frames_share_the_label_of_their_first_frame():
    encoder, task = supervision(stack=2, offsets=1)
    values = torch.randn(2, 8, 6)
    labels, valid = task.labels(values, torch.tensor([6, 3]))
    assert valid.tolist() == [[True] * 5 + [False], [True, True] + [False] * 4]
    for t in range(5):
        pair = torch.cat([values[:, :, t], values[:, :, t + 1]], dim=-1)
        assert torch.equal(labels[:, t], task.quantizer(pair))
    given = inputs(encoder, values, [6, 3])
    found = task(given)
    logits = task.heads(given.features).unflatten(-1, task.shape)[:, :, 0, 0]
    pairs = [(0, t) for t in range(4)] + [(1, 0)]
    expected = torch.stack([F.cross_entropy(logits[i, t], labels[i, t + 1, 0]) for i, t in pairs]).mean()
    torch.testing.assert_close(found.loss, expected)
    # Known at frame t are the stacks that end there: the one before the one that begins there.
    hits = [bool(labels[0, t + 2, 0] == labels[0, t, 0]) for t in range(3)]
    assert float(found.metrics["repeat_1"]) == pytest.approx(sum(hits) / 3)


def test_baselines_on_a_periodic_sequence():
    encoder, task = supervision(codes=8, offsets=3)
    codes = [5, 5, 2, 5, 5, 2, 5, 5, 2, 5]  # period 3; the most frequent code has 7 of 10
    found = task(inputs(encoder, latents_of(task, codes))).metrics
    assert float(found["unigram"]) == pytest.approx(0.7)
    for k, hits in ((1, 3 / 9), (2, 3 / 8), (3, 7 / 7)):
        assert float(found[f"repeat_{k}"]) == pytest.approx(hits)
    assert float(found["code_use"]) == pytest.approx(2 / 8)
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert float(found["perplexity"]) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_accuracy_per_offset():
    encoder, task = supervision(codes=8, offsets=2)
    codes = [5, 5, 2, 5, 5, 2, 5, 5, 2, 5]
    with torch.no_grad():  # the first head always predicts 5, the second always 2
        task.heads.weight.zero_()
        task.heads.bias.copy_(torch.stack([F.one_hot(torch.tensor(code), 8) for code in (5, 2)]).flatten().float())
    found = task(inputs(encoder, latents_of(task, codes))).metrics
    assert float(found["accuracy_1"]) == pytest.approx(6 / 9)
    assert float(found["accuracy_2"]) == pytest.approx(3 / 8)


def test_frequencies_accumulate_over_training_batches():
    encoder, task = supervision(codes=8, offsets=1)
    task(inputs(encoder, latents_of(task, [1] * 6)))
    found = task(inputs(encoder, latents_of(task, [3, 3, 3, 1]))).metrics
    assert float(found["unigram"]) == pytest.approx(1 / 4)  # code 1 has occurred 7 times, code 3 three times
    assert task.counts[0].tolist() == [0, 7, 0, 3, 0, 0, 0, 0]
    task.eval()(inputs(encoder, latents_of(task, [3] * 6)))
    assert task.counts.sum() == 10
    assert {"counts", "quantizer.projection", "quantizer.codebooks"} < set(task.state_dict())


def test_frequencies_are_summed_over_processes(monkeypatch):
    encoder, task = supervision(codes=8, offsets=1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counted: counted.add_(torch.tensor([10] + [0] * 7)))
    with torch.no_grad():  # with gradients the loss would be reduced over processes, too
        found = task(inputs(encoder, latents_of(task, [3, 3, 0])))
    assert task.counts[0].tolist() == [11, 0, 0, 2, 0, 0, 0, 0]
    assert float(found.metrics["unigram"]) == pytest.approx(1 / 3)


def test_gradients_reach_the_encoder_and_every_head():
    encoder, task = supervision(codebooks=2, offsets=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = task(inputs(encoder, torch.randn(4, 8, 12)))
    assert found.loss.dtype == torch.float32 and not any(m.requires_grad for m in found.metrics.values())
    found.loss.backward()
    assert all(bool((p.grad != 0).any()) for p in encoder.parameters())
    assert bool((task.heads.weight.grad.unflatten(0, task.shape) != 0).any(-1).any(-1).all())


def correlated(frames):
    """Latents `(1, 8, frames)` of strongly correlated channels, as of a codec in its first minutes of training."""
    mixed = torch.randn(8, 8) * torch.tensor([5, 2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1])[:, None]
    return (torch.randn(frames, 8) @ mixed + 2).mT[None]


def test_whitening_raises_code_use_on_correlated_latents():
    torch.manual_seed(0)
    values = correlated(4000)
    found = {}
    for steps in (0, 1):
        encoder, task = supervision(codes=64, code_dim=8, whitening_steps=steps)
        found[steps] = task(inputs(encoder, values)).metrics
    assert float(found[1]["code_use"]) > 0.8 and float(found[1]["perplexity"]) > 20
    assert float(found[0]["code_use"]) < 0.6 and float(found[0]["perplexity"]) < 8


def test_whitening_uses_the_covariance_of_the_first_batches():
    encoder, task = supervision(whitening_steps=2)
    values = correlated(600).reshape(8, 3, 200).transpose(0, 1).contiguous()
    values[1, :, 150:] = 1e6  # padding
    task(inputs(encoder, values, [200, 150, 200]))
    task.eval()(inputs(encoder, values))
    task.train()(inputs(encoder, values[:1]))
    seen = torch.cat([values[0], values[1, :, :150], values[2], values[0]], dim=-1).mT
    mean, matrix = task.whitening.mean.clone(), task.whitening.matrix.clone()
    torch.testing.assert_close(mean, seen.mean(0), rtol=1e-5, atol=1e-5)
    expected = torch.cov(seen.double().mT, correction=0)
    eigenvalues, directions = torch.linalg.eigh(expected)
    eigenvalues = eigenvalues + 1e-3 * eigenvalues.mean() + 1e-8
    expected = directions @ torch.diag(eigenvalues**-0.5) @ directions.mT
    torch.testing.assert_close(matrix.double(), expected, rtol=1e-4, atol=1e-4)
    task(inputs(encoder, 3 * values[:1]))  # a third batch changes nothing
    assert torch.equal(mean, task.whitening.mean) and torch.equal(matrix, task.whitening.matrix)
    labels, _ = task.labels(values[:1], torch.tensor([200]))
    assert torch.equal(labels, task.quantizer((values[:1].mT - mean) @ matrix))


def test_whitening_stays_finite_without_frames_and_on_silence():
    encoder, task = supervision(whitening_steps=3)
    for values, frames in ((torch.zeros(1, 8, 4), [0]), (torch.zeros(1, 8, 4), [4]), (torch.ones(1, 8, 4), [4])):
        assert bool(task(inputs(encoder, values, frames)).loss.isfinite())
        assert bool(task.whitening.matrix.isfinite().all())


def test_invalid_settings_raise():
    encoder = NeighboringConfig().build(latent_spec=SPEC)
    with pytest.raises(PartitaError, match="NeighboringEncoder .* 1 future frames"):
        RQMTP(SPEC, encoder)
    with pytest.raises(PartitaError, match="offsets is 0"):
        supervision(offsets=0)
    with pytest.raises(PartitaError, match="whitening_steps is -1"):
        supervision(whitening_steps=-1)


def test_rq_mtp_beats_unigram_and_repeat_baselines():
    """On latents of a partly predictable process, accuracy falls with the offset."""
    spec = LatentSpec(4, 24_000, 960, tokens_per_frame=2)
    encoder, task = supervision(spec, codes=16, offsets=3, whitening_steps=10)
    turn = torch.linalg.qr(torch.randn(8, 8))[0]

    def draw(batch, frames):
        x = [torch.randn(batch, 8)]
        for _ in range(frames - 1):
            x.append(0.97 * x[-1] @ turn + 0.24 * torch.randn(batch, 8))
        return torch.stack(x, 1).unflatten(-1, (2, 4)).flatten(1, 2).mT

    optimizer = torch.optim.Adam([*encoder.parameters(), *task.parameters()], lr=1e-2)
    before = {name: tensor.clone() for name, tensor in task.quantizer.state_dict().items()}
    for _ in range(60):
        optimizer.zero_grad()
        task(inputs(encoder, draw(16, 24))).loss.backward()
        optimizer.step()
    found = {name: float(value) for name, value in task.eval()(inputs(encoder, draw(64, 24))).metrics.items()}
    for k in (1, 2, 3):
        assert found[f"accuracy_{k}"] > found["unigram"] + 0.1 and found[f"accuracy_{k}"] > found[f"repeat_{k}"] + 0.1
    assert found["accuracy_1"] > found["accuracy_2"] > found["accuracy_3"]
    assert found["code_use"] > 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.quantizer.state_dict().items())
