import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch
from partita.evaluation import Clip, Difference, Evaluation, Interval, MetricInfo, Speed, System
from partita.report import write_report
from partita.report.curves import chart, series
from partita.report.media import frequency_marks, spectrogram
from partita_core import PartitaError
from PIL import Image

RATE = 16000


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style and script."""

    def __init__(self, text):
        super().__init__()
        self.source, self.tags, self.text, self._inside = text, [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in ("style", "script"):
            self.text += data

    def all(self, tag, **attributes):
        return [found for name, found in self.tags if name == tag and attributes.items() <= found.items()]


def tone(hertz, seconds=0.3, channels=2):
    time = torch.arange(int(seconds * RATE)) / RATE
    return 0.5 * torch.sin(2 * math.pi * hertz * time).expand(channels, -1)


def evaluation():
    interval = Interval(0.25, 0.2, 0.3)
    systems = (System("model <a>", False, 840.0, 1200.0, Speed(12.0, 250.0)), System("silence", True))
    return Evaluation(
        systems,
        (MetricInfo("log_mel_l1", "log-mel L1", "", "lower"),),
        (Clip("first", "stereo", 0.3),),
        {name: {"log_mel_l1": (0.257,)} for name in ("model <a>", "silence")},
        {name: {"log_mel_l1": interval} for name in ("model <a>", "silence")},
        (Difference("model <a>", "silence", "log_mel_l1", Interval(-0.5, -0.6, -0.4)),),
        {"confidence": 0.95},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deeper" / "report.html"
    clips = [
        ("first", tone(440), {"model <a>": tone(880), "b": torch.zeros(2, 4800)}, RATE),
        ("one sample", torch.full((1, 1), 0.5), {"model <a>": torch.zeros(1, 1)}, RATE),
    ]
    rows = [{"step": s, "total": 3 / (s + 1), "losses/mel": 1.0, "note": "x"} for s in range(50)]
    write_report(
        path, title="A & B", clips=clips, loss_curves=rows, evaluation=evaluation(), summary=[("Steps", "5 < 6")]
    )
    return Page(path.read_text(encoding="utf-8"))


def test_nothing_is_asked_of_the_network(page):
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not page.all("link", rel="stylesheet") and "@import" not in page.source
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", page.source)


def test_every_source_has_a_player_and_a_spectrogram(page):
    assert len(page.all("article")) == 2
    assert len(page.all("audio")) == len(page.all("img")) == len(page.all("button", **{"class": "pick"})) == 5
    assert len(page.all("button", **{"class": "play"})) == len(page.all("input", type="range")) == 2
    assert page.all("article")[0]["data-seconds"] == "0.300000"


def test_the_players_hold_the_audio(page):
    first, second, _, short, _ = (decoded(tag["src"], "audio/flac") for tag in page.all("audio"))
    audio, rate = soundfile.read(first)
    assert rate == RATE
    np.testing.assert_allclose(audio.T, tone(440).numpy(), atol=2**-15)
    np.testing.assert_allclose(soundfile.read(second)[0].T, tone(880).numpy(), atol=2**-15)
    assert soundfile.read(short)[0].shape == (1,)


def test_the_spectrograms_are_pictures_on_one_scale(page):
    tones = [np.asarray(Image.open(decoded(tag["src"], "image/png"))) for tag in page.all("img")]
    low, high, silent = tones[:3]
    assert low.max() == 255 and silent.max() == 0
    assert abs(int(high.max()) - 255) < 6  # the same level in another place
    assert low.mean(1).argmax() > high.mean(1).argmax()


def test_figures_are_in_the_table_and_with_the_clips(page):
    text = " ".join(page.text.split())
    assert "model <a>" in text and "0.250" in text and "0.200 to 0.300" in text
    assert "−0.500 [−0.600, −0.400]" in text
    assert "840" in text and "1.20" in text and "250" in text
    assert "0.257" in text and text.count("0.257") == 1  # the clip's own, of the one model that has one


def test_names_are_escaped(page):
    assert "A &amp; B" in page.source and "5 &lt; 6" in page.source
    assert "<a>" not in page.source.replace("&lt;a&gt;", "")


def test_the_page_fits_a_phone_and_the_dark(page):
    assert page.all("meta", name="viewport") and page.all("meta", name="color-scheme")
    assert "prefers-color-scheme: dark" in page.source and "max-width: 640px" in page.source


def test_an_empty_report_has_no_empty_sections(tmp_path):
    write_report(tmp_path / "r.html", title="Nothing")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not page.all("section") and not page.all("dl")


def test_long_clips_are_cut(tmp_path):
    write_report(tmp_path / "r.html", title="x", clips=[("a", tone(440, 2.0), {}, RATE)], max_seconds=0.5)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert len(soundfile.read(decoded(page.all("audio")[0]["src"], "audio/flac"))[0]) == RATE // 2


def test_estimates_of_another_shape_are_refused_and_nothing_is_left(tmp_path):
    clip = ("a", torch.zeros(1, 10), {"model": torch.zeros(1, 9)}, RATE)
    with pytest.raises(PartitaError, match=r"a: what model made is \(1, 9\), the original \(1, 10\)"):
        write_report(tmp_path / "r.html", title="x", clips=[clip])
    assert not list(tmp_path.iterdir())


def test_a_tone_is_where_its_mark_says():
    levels = spectrogram(tone(1000, 1.0), RATE)
    height = 1 - (levels.mean(1).argmax() + 0.5) / len(levels)
    assert height == pytest.approx(dict((b, a) for a, b in frequency_marks(RATE))["1 kHz"], abs=0.02)
    assert levels.max() == pytest.approx(20 * math.log10(0.5), abs=1)


def test_series_takes_numbers_by_their_step():
    rows = [{"step": 10, "a": 1.0, "b": None, "time": 3.0}, {"step": 20, "a": 2.0, "c": 1}, {"step": 30, "a": math.nan}]
    found = series(rows)
    assert list(found) == ["a"] and found["a"].tolist() == [[10, 1], [20, 2]]


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0, 0.0], [-5.0, 5.0], [1e-6, 1e3], [1e9, 1.1e9], [3.0] * 2000])
def test_charts_of_any_values_are_drawn_within_their_frame(values):
    points = np.stack([np.arange(len(values)) * 100.0, np.asarray(values)], axis=1)
    drawing = chart("a <b>", points)
    assert "nan" not in drawing and "inf" not in drawing and "a &lt;b&gt;" in drawing
    path = re.search(r'class="line" d="M([^"]*)"', drawing).group(1)
    places = np.asarray([[float(v) for v in pair.split()] for pair in path.split("L")])
    assert len(places) <= 240
    assert (places >= 0).all() and (places <= [320, 150]).all()
    assert drawing.count('class="rule"') >= 1


def decoded(uri, kind):
    assert uri.startswith(f"data:{kind};base64,")
    return io.BytesIO(base64.b64decode(uri.split(",", 1)[1], validate=True))
