"""Training crops of stored latents: slices, damaged rows, determinism, texts and codes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from partita.data import (
    DataConfig,
    LatentCrops,
    TextTask,
    build_loader,
    corpus_spec,
    encode_corpus,
    open_dataset,
    stored_latents,
)
from partita.interop import from_huggingface
from partita_core import ChannelLayout, Latents, PartitaError, override

pytestmark = pytest.mark.usefixtures("datasets_cache")

PLAIN = DataConfig(crop_seconds=0.2, batch_size=4, num_workers=0)


@pytest.fixture
def corpus(codec, sources, tmp_path) -> Path:
    encode_corpus(codec, sources, tmp_path / "corpus", progress=False)
    return tmp_path / "corpus"


def loader(codec, folder, config=PLAIN, **settings):
    common = {"audio_spec": codec.audio_spec, "crop_multiple": codec.latent_spec.hop, "seed": 3}
    return build_loader(open_dataset(folder), config, **common | settings)


def test_latent_crops_are_slices_of_stored_latents(codec, corpus):
    dataset = open_dataset(corpus)
    whole = list(stored_latents(dataset))
    crops = LatentCrops(dataset, audio_spec=codec.audio_spec, crop_samples=1200, config=PLAIN, seed=0)
    hop = codec.latent_spec.hop
    frames, starts = 1200 // hop, set()
    for epoch in range(30):
        for index in (0, 2):  # 800 and 2401 samples
            item, values = crops[epoch, index], whole[index].values[0]
            assert item["latents"].shape == (4, frames) and item["latents"].dtype == torch.float32
            assert (item["index"], item["broken"]) == (index, [])
            if index == 0:
                count = values.shape[-1]
                assert item["audio_lengths"] == 800 and torch.equal(item["latents"][:, :count], values)
                assert not item["latents"][:, count:].any()
                continue
            places = [
                i
                for i in range(values.shape[-1] - frames + 1)
                if torch.equal(values[:, i : i + frames], item["latents"])
            ]
            assert len(places) == 1
            starts.add(places[0])
            assert item["audio_lengths"] == min(frames * hop, 2401 - places[0] * hop)
    assert len(starts) > 15 and max(starts) <= whole[2].values.shape[-1] - frames


def test_damaged_rows_are_replaced_and_reported(codec, corpus):
    dataset = open_dataset(corpus)
    rows = dataset.to_list()
    spec, description = corpus_spec(dataset), dataset.info.description
    rows[1]["latents"] = np.full(len(rows[1]["latents"]) // 4, np.nan, np.float32).tobytes()
    rows[2]["layout"] = 9
    damaged = type(dataset).from_list(rows)
    damaged.info.description = description
    settings = {"audio_spec": codec.audio_spec, "crop_samples": 1200, "config": PLAIN, "seed": 0}
    crops, good = (LatentCrops(each, **settings) for each in (damaged, dataset))
    assert torch.equal(crops[4, 3]["latents"], good[4, 3]["latents"]) and crops[4, 3]["broken"] == []
    for index, reason in {1: "some of the stored latents are not finite", 2: "layout 9"}.items():
        item = crops[0, index]
        assert item["index"] not in (1, 2) and item["latents"].isfinite().all()
        assert all(name in " ".join(item["broken"]) for name in (f"{index:02}.wav", reason))
    with pytest.raises(PartitaError, match="01.wav: some of the stored latents are not finite"):
        spec.latents(rows[1])


def test_latent_batches_are_deterministic(codec, corpus):
    reader = iter(loader(codec, corpus))
    first, second = next(reader), next(reader)
    again = next(iter(loader(codec, corpus, start_step=1)))
    assert torch.equal(again["latents"], second["latents"]) and not torch.equal(first["latents"], second["latents"])
    parts = [next(iter(loader(codec, corpus, rank=rank, world_size=2))) for rank in (0, 1)]
    assert torch.equal(torch.cat([part["latents"] for part in parts]), first["latents"])
    assert first.keys() == {"latents", "audio_lengths", "layout", "index", "file_name", "broken"}
    assert first["audio_lengths"].dtype == first["layout"].dtype == torch.int64


def test_latent_crops_have_texts_and_codes(codec, foreign, sources, corpus, tmp_path):
    tasks = (TextTask("p", "all of {label}", whole=True), TextTask("p", "some of {label}"))
    config = DataConfig(crop_seconds=0.12, batch_size=40, num_workers=0, texts=tasks)
    batch = next(iter(loader(codec, corpus, config)))
    for index, length, answer in zip(batch["index"].tolist(), batch["audio_lengths"].tolist(), batch["answer"]):
        kinds = {answer.split(" of ")[0] for answer in batch["answer"]}
        assert answer.endswith(f" of {open_dataset(corpus)[index]['label']}") and kinds == {"all", "some"}
        assert length == 800 or answer.startswith("some")
    with pytest.raises(PartitaError, match="needs the column 'lable'"):
        loader(codec, corpus, DataConfig(texts=(TextTask("p", "{lable}"),)))
    mimi = from_huggingface(foreign("mimi"))
    encode_corpus(mimi, sources, tmp_path / "mimi", progress=False)
    batch = next(iter(loader(mimi, tmp_path / "mimi", config)))
    frames = -(-batch["audio_lengths"] // mimi.latent_spec.hop)
    inside = torch.arange(batch["codes"].shape[-1]) < frames[:, None]
    assert batch["codes"].shape == (40, 4, batch["latents"].shape[-1])
    assert ((batch["codes"] >= 0).all(1) == inside).all() and not batch["latents"].movedim(1, 2)[~inside].any()
    assert (batch["layout"] == ChannelLayout.MONO).all()


def test_corpus_of_model_with_several_tokens_per_frame(tmp_path, sources):
    from partita.recipes import music2latent2_tiny
    from partita_core import build

    small = override(music2latent2_tiny().model, ["audio.sample_rate=8000"])
    torch.manual_seed(0)
    codec = build(small).eval()
    encode_corpus(codec, sources, tmp_path / "out", progress=False)
    spec = codec.latent_spec
    assert spec.tokens_per_frame > 1
    rows = list(stored_latents(open_dataset(tmp_path / "out", "validation")))
    assert all(
        isinstance(row, Latents) and row.values.shape[-1] == row.frames[0] * spec.tokens_per_frame for row in rows
    )
    config = DataConfig(crop_seconds=2 * spec.hop / 8000, batch_size=2, num_workers=0)
    batch = next(iter(loader(codec, tmp_path / "out", config)))
    assert batch["latents"].shape == (2, spec.dim, 2 * spec.tokens_per_frame)
