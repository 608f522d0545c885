"""Supervision through a frozen language model: sequences, gradients, and dependence on the audio."""

import copy

import pytest
import torch
from partita_core import LatentSpec, PartitaError
from partita_representation import (
    CausalRepresentation,
    FrozenLanguageModel,
    FrozenLLM,
    SupervisionInput,
    SwiGLUAdapter,
    embed_audio,
    padded,
)
from torch.nn import functional as F

SPEC = LatentSpec(4, 24_000, 960)


@pytest.fixture(scope="module")
def lm(byte_lm):
    return FrozenLanguageModel(byte_lm)


@pytest.fixture
def parts(lm):
    torch.manual_seed(0)
    encoder = CausalRepresentation(SPEC, width=16, layers=1, heads=2, mlp_ratio=2)
    adapter = SwiGLUAdapter(16, lm.hidden_size, hidden=32)
    return encoder, adapter, FrozenLLM(adapter, lm)


def given(encoder, values, answers, frames=None, prompts=None):
    frames = torch.full((len(values),), values.shape[-1]) if frames is None else torch.tensor(frames)
    prompts = ["say: "] * len(values) if prompts is None else prompts
    return SupervisionInput(encoder(values), values, frames, prompts, answers)


def ids(text):
    return [byte + 3 for byte in text.encode()]  # the ids of ByT5Tokenizer begin with pad, end and unknown


# ------------------------------------------------------------------ the language model


def test_language_model_is_frozen_and_identified_by_its_weights(lm, byte_lm):
    assert not lm.state_dict() and not list(lm.parameters())
    assert not lm.train().frozen.module.training
    assert not any(p.requires_grad for p in lm.frozen.module.parameters())
    assert (lm.name, lm.hidden_size, lm.eos_id) == (str(byte_lm), 24, 1)
    assert len(lm.sha256) == 16 and FrozenLanguageModel(byte_lm, lm.sha256).sha256 == lm.sha256
    assert copy.deepcopy(lm).frozen is lm.frozen
    assert {p.dtype for p in lm.double().frozen.module.parameters()} == {torch.float32}
    half = FrozenLanguageModel(byte_lm, dtype=torch.bfloat16)
    assert half.embed(torch.tensor([3])).dtype == torch.bfloat16 and half.sha256 != lm.sha256


def test_wrong_hash_raises(byte_lm, lm):
    with pytest.raises(PartitaError, match=f"{lm.sha256}.* 0123456789abcdef"):
        FrozenLanguageModel(byte_lm, "0123456789abcdef")


def test_unloadable_language_model_raises_in_one_line(tmp_path, byte_lm):
    for name in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(PartitaError, match="could not be loaded") as caught:
            FrozenLanguageModel(name)
        assert str(name) in str(caught.value) and "\n" not in str(caught.value)
    for path in byte_lm.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(PartitaError, match="could not be loaded"):
        FrozenLanguageModel(tmp_path)


def test_tokenize_adds_no_special_tokens(lm):
    assert lm.tokenize(["hé", ""]) == [ids("hé"), []]
    assert torch.equal(lm.embed(torch.tensor(ids("a"))), lm.frozen.module.model.embed_tokens.weight[ids("a")])


def test_question_is_prompt_audio_separator(lm):
    audio = torch.randn(2, 3, 24)
    first, second = lm.questions(["ab", ""], audio, torch.tensor([3, 1]))
    assert torch.equal(
        first, torch.cat([lm.embed(torch.tensor(ids("ab"))), audio[0], lm.embed(torch.tensor(ids("\n")))])
    )
    assert torch.equal(second, torch.cat([audio[1, :1], lm.embed(torch.tensor(ids("\n")))]))
    batch, mask = padded([first, second])
    assert mask.tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]] and not batch[1, 2:].any()
    logits = lm(batch, mask)
    torch.testing.assert_close(lm(batch, mask, last=2), logits[:, -2:])
    torch.testing.assert_close(lm(second[None], mask[1:, :2]), logits[1:, :2], rtol=1e-4, atol=1e-5)


def test_question_begins_with_the_bos_token(byte_lm, lm):
    own = FrozenLanguageModel(byte_lm)
    own._bos = [5]
    (question,) = own.questions(["a"], torch.zeros(1, 0, 24), torch.tensor([0]))
    assert torch.equal(question, lm.embed(torch.tensor([5, *ids("a\n")])))


def test_generation_is_greedy_until_the_end_token(lm):
    torch.manual_seed(0)
    rows = [torch.randn(n, 24) for n in (5, 2, 9)]
    found = lm.generate(*padded(rows), max_new_tokens=12)
    for row, text in zip(rows, found):
        sequence, taken = row[None], []
        while len(taken) < 12 and (not taken or taken[-1] != lm.eos_id):
            taken.append(int(lm(sequence, torch.ones(1, sequence.shape[1]))[0, -1].argmax()))
            sequence = torch.cat([sequence, lm.embed(torch.tensor([[taken[-1]]]))], dim=1)
        kept = bytes(i - 3 for i in taken if 3 <= i < 259).decode(errors="ignore")
        assert text == kept.strip()
        assert lm.generate(*padded([row]), max_new_tokens=12) == [text]


# ------------------------------------------------------------------ the loss


def by_definition(lm, adapter, inputs):
    """Loss and accuracy by definition: one complete sequence per item, the logits before each token of the answer."""
    entropies, hits = [], []
    for i, answer in enumerate(inputs.answers):
        if answer:
            audio = adapter(inputs.features[i : i + 1, : int(inputs.frames[i])])
            ends = [
                lm.embed(torch.tensor([ids(text)], dtype=torch.int64)) for text in (inputs.prompts[i], "\n" + answer)
            ]
            sequence = torch.cat([ends[0], audio, ends[1]], dim=1)
            targets = torch.tensor([*ids(answer), 1])
            logits = lm(sequence, torch.ones(sequence.shape[:2]))[0, -len(targets) :]
            entropies += F.cross_entropy(logits, targets, reduction="none")
            hits += logits.argmax(-1) == targets
    return torch.stack(entropies).mean(), torch.stack(hits).float().mean()


@pytest.mark.parametrize("frames", [None, [7, 2, 5]])
def test_loss_covers_answers_and_their_end_tokens_only(lm, parts, frames):
    encoder, adapter, task = parts
    inputs = given(encoder, torch.randn(3, 4, 7), ["yes", "", "à b"], frames, ["say: ", "x", "and what is this? "])
    found = task(inputs)
    expected, accuracy = by_definition(lm, adapter, inputs)
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.metrics["cross_entropy"], found.loss.detach())
    torch.testing.assert_close(found.metrics["token_accuracy"], accuracy)
    without_prompt = task(inputs._replace(prompts=None))
    expected, _ = by_definition(lm, adapter, inputs._replace(prompts=["", "", ""]))
    torch.testing.assert_close(without_prompt.loss, expected, rtol=1e-5, atol=1e-6)


def test_audio_padding_has_no_effect(parts):
    encoder, adapter, task = parts
    values = torch.randn(2, 4, 8)
    spoiled = values.clone()
    spoiled[1, :, 3:] = 50
    losses = [task(given(encoder, x, ["yes", "no"], [8, 3])).loss for x in (values, spoiled, F.pad(values, (0, 6)))]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-5, atol=0)
    embeddings, counts = embed_audio(adapter, encoder(values), torch.tensor([8, 3]))
    assert embeddings.shape == (2, 4, 24) and counts.tolist() == [4, 2]
    alone, _ = embed_audio(adapter, encoder(values[1:, :, :3]), torch.tensor([3]))
    torch.testing.assert_close(embeddings[1:, :2], alone)


def test_batch_without_texts_has_zero_loss_and_gradient(parts):
    encoder, adapter, task = parts
    found = task(given(encoder, torch.randn(2, 4, 6), ["", ""]))
    assert found.loss == 0 and not found.metrics
    found.loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in (*encoder.parameters(), *adapter.parameters()))
    with pytest.raises(PartitaError, match="needs texts"):
        task(given(encoder, torch.randn(2, 4, 6), None))


def test_adapter_is_not_in_the_state_dict(parts):
    _, adapter, task = parts
    assert not task.state_dict() and not list(task.parameters()) and task.adapter is adapter


def test_missing_adapter_or_language_model_raises(lm, parts):
    for given, missing in (((None, lm), "no adapter"), ((parts[1], None), "no language model")):
        with pytest.raises(PartitaError, match=missing):
            FrozenLLM(*given)


def test_gradients_reach_encoder_and_adapter_only(lm, parts):
    """Gradients are non-zero in encoder and adapter, absent in the language model, whose weights do not change."""
    encoder, adapter, task = parts
    task.train()
    with torch.autocast("cpu", torch.bfloat16):
        found = task(given(encoder, torch.randn(3, 4, 6), ["yes", "no", "maybe"]))
    assert found.loss.dtype == torch.float32
    found.loss.backward()
    assert all(bool((p.grad != 0).any()) for p in (*encoder.parameters(), *adapter.parameters()))
    assert all(p.grad is None for p in lm.frozen.module.parameters())
    lm.frozen.check()


def test_bfloat16_language_model_accepts_float32_features(byte_lm, parts):
    encoder, adapter, task = parts
    half = FrozenLanguageModel(byte_lm, dtype=torch.bfloat16)
    inputs = given(encoder, torch.randn(2, 4, 6), ["yes", "no"])
    in_half = FrozenLLM(adapter, half)
    torch.testing.assert_close(in_half(inputs).loss, task(inputs).loss, rtol=0.05, atol=0)


def test_answers_follow_the_audio_after_training(lm, parts):
    """Three kinds of audio, three words; after training, permuted audio raises the loss and the answers are right."""
    encoder, adapter, task = parts
    kinds, words = torch.randn(3, 4, 1), ["do", "re", "mi"]

    def draw():
        kind = torch.arange(12) % 3
        return kinds[kind] + 0.3 * torch.randn(12, 4, 6), [words[k] for k in kind]

    def loss(values, answers):
        with torch.no_grad():
            return float(task(given(encoder, values, answers)).loss)

    torch.manual_seed(0)
    values, answers = draw()
    before = loss(values, answers)
    optimizer = torch.optim.Adam([*encoder.parameters(), *adapter.parameters()], lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task(given(encoder, *draw())).loss.backward()
        optimizer.step()
    after, permuted = loss(values, answers), loss(values.roll(1, 0), answers)
    assert after < 0.5 * before and permuted > 1.5 * after
    lm.frozen.check()
    audio, counts = embed_audio(adapter, encoder(values), torch.full((12,), 6))
    texts = lm.generate(*padded(lm.questions(["say: "] * 12, audio, counts)), max_new_tokens=4)
    right = sum(text == answer for text, answer in zip(texts, answers))
    assert right >= 10, texts
