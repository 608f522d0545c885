import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch
from partita.evaluation import (
    ChannelBalance,
    Clip,
    Difference,
    Evaluation,
    FrechetDistances,
    Interval,
    LatentStatistics,
    MetricInfo,
    Speed,
    System,
)
from partita.report import Robustness, write_report
from partita.report.comparisons import rate_distortion
from partita.report.curves import chart, charts, curves_of
from partita.report.media import difference_png, frequency_marks, spectrogram
from partita.report.plots import Series, plot
from partita_core import PartitaError, write_json
from PIL import Image

RATE = 16000


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style and script."""

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
        (FrechetDistances("hf:<e>", 8, 1, {"model <a>": 17.5, "silence": 99.5}),),
        {
            "model <a>": LatentStatistics(
                70, ChannelBalance(1.25, 0.5, 1.5, 1.75, 1, -0.25), (0.75, 0.25), (1.0, 0.0), (-0.25, None)
            )
        },
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
        path,
        title="A & B",
        clips=clips,
        logs={"model <a>": rows},
        evaluation=evaluation(),
        models={"model <a>": {"steps": "1,234"}, "b": {"size": "3 M"}},
        summary=[("Steps", "5 < 6")],
    )
    return Page(path.read_text(encoding="utf-8"))


def test_page_makes_no_network_requests(page):
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not page.all("link", rel="stylesheet") and "@import" not in page.source
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", page.source)


def test_every_source_has_a_player_and_a_spectrogram(page):
    assert len(page.all("article")) == 2
    assert len(page.all("audio")) == len(page.all("button", **{"class": "pick"})) == 5
    assert len(page.all("img", **{"class": "levels"})) == 5 and len(page.all("img", **{"class": "differences"})) == 3
    assert len(page.all("button", **{"class": "play"})) == len(page.all("input", type="range")) == 2
    assert [tag["value"] for tag in page.all("input", name="view")] == ["levels", "differences"]
    assert page.all("article")[0]["data-seconds"] == "0.300000"


def test_players_contain_the_audio(page):
    first, second, _, short, _ = (decoded(tag["src"], "audio/flac") for tag in page.all("audio"))
    audio, rate = soundfile.read(first)
    assert rate == RATE
    np.testing.assert_allclose(audio.T, tone(440).numpy(), atol=2**-15)
    np.testing.assert_allclose(soundfile.read(second)[0].T, tone(880).numpy(), atol=2**-15)
    assert soundfile.read(short)[0].shape == (1,)


def test_spectrograms_share_one_scale(page):
    tones = [np.asarray(Image.open(decoded(tag["src"], "image/png"))) for tag in page.all("img", **{"class": "levels"})]
    low, high, silent = tones[:3]
    assert low.max() == 255 and silent.max() == 0
    assert abs(int(high.max()) - 255) < 6  # the same level in another place
    assert low.mean(1).argmax() > high.mean(1).argmax()


def test_metrics_are_in_the_table_and_with_the_clips(page):
    text = " ".join(page.text.split())
    assert "model <a>" in text and "0.250" in text and "0.200 to 0.300" in text
    assert "−0.500 [−0.600, −0.400]" in text
    assert "840" in text and "1.20" in text and "250" in text
    assert "Frechet [hf:<e>] ↓" in text and "17.50" in text and "1 clips in 8 dimensions" in text
    assert "1.8 of 2" in text and "−0.25" in text  # the latents' effective rank and kurtosis
    assert "1,234" in text and "3 M" in text
    assert "0.257" in text and text.count("0.257") == 1  # value of this clip, for one model only


def test_names_are_escaped(page):
    assert "A &amp; B" in page.source and "5 &lt; 6" in page.source
    assert "<a>" not in page.source.replace("&lt;a&gt;", "")


def test_page_supports_phones_and_dark_mode(page):
    assert page.all("meta", name="viewport") and page.all("meta", name="color-scheme")
    assert "prefers-color-scheme: dark" in page.source and "max-width: 640px" in page.source


def test_empty_report_has_no_sections(tmp_path):
    write_report(tmp_path / "r.html", title="Nothing")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not page.all("section") and not page.all("dl")


def test_long_clips_are_truncated(tmp_path):
    write_report(tmp_path / "r.html", title="x", clips=[("a", tone(440, 2.0), {}, RATE)], max_seconds=0.5)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert len(soundfile.read(decoded(page.all("audio")[0]["src"], "audio/flac"))[0]) == RATE // 2


def test_estimates_of_another_shape_leave_no_file(tmp_path):
    clip = ("a", torch.zeros(1, 10), {"model": torch.zeros(1, 9)}, RATE)
    with pytest.raises(PartitaError, match=r"a: model .*\(1, 9\), the original \(1, 10\)"):
        write_report(tmp_path / "r.html", title="x", clips=[clip])
    assert not list(tmp_path.iterdir())


def test_frequency_marks_match_the_spectrogram():
    levels = spectrogram(tone(1000, 1.0), RATE)
    height = 1 - (levels.mean(1).argmax() + 0.5) / len(levels)
    assert height == pytest.approx(dict((b, a) for a, b in frequency_marks(RATE))["1 kHz"], abs=0.02)
    assert levels.max() == pytest.approx(20 * math.log10(0.5), abs=1)


def test_curves_are_numbers_by_step():
    rows = [{"step": 10, "a": 1.0, "b": None, "time": 3.0}, {"step": 20, "a": 2.0, "c": 1}, {"step": 30, "a": math.nan}]
    found = curves_of(rows)
    assert list(found) == ["a"] and found["a"].tolist() == [[10, 1], [20, 2]]


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0, 0.0], [-5.0, 5.0], [1e-6, 1e3], [1e9, 1.1e9], [3.0] * 2000])
def test_charts_stay_within_their_frame(values):
    points = np.stack([np.arange(len(values)) * 100.0, np.asarray(values)], axis=1)
    drawing = chart("a <b>", {"m": points}, {"m": 0})
    assert "nan" not in drawing and "inf" not in drawing and "a &lt;b&gt;" in drawing
    path = re.search(r'class="line" d="M([^"]*)"', drawing).group(1)
    places = np.asarray([[float(v) for v in pair.split()] for pair in path.split("L")])
    assert len(places) <= 240
    assert (places >= 0).all() and (places <= [320, 168]).all()
    assert drawing.count('class="rule"') >= 1


def test_models_have_one_color_and_curves_are_ordered():
    levels = {"validation/usage_0": 0.5, "validation/log_mel_l1": 1.0}
    rows = [{"step": s, "lr/generator": 1.0, "total": 2.0 + s, **levels} for s in range(3)]
    drawing = charts({"a": rows, "b": rows[:2]}, {"a": 4, "b": 9})
    names = re.findall(r"<figcaption><span>([^<]*)", drawing)
    assert names == ["total", "validation/log_mel_l1", "validation/usage_0", "lr/generator"]
    places = [drawing.index(name) for name in (names[1], "<details>", *names[2:])]
    assert places == sorted(places)  # each of many levels is folded away
    assert drawing.count('class="c4 line"') == drawing.count('class="c1 line"') == 4  # nine is the second again


def test_differences_ignore_invisible_levels():
    original = np.asarray([[0.0, -30.0, -200.0, -200.0]])
    estimate = np.asarray([[0.0, 0.0, -90.0, -50.0]])
    shades = np.asarray(Image.open(io.BytesIO(difference_png(estimate, original, top=0.0))))
    assert shades.tolist() == [[128, 255, 128, 255]]
    shades = np.asarray(Image.open(io.BytesIO(difference_png(original, estimate, top=0.0))))
    assert shades.tolist() == [[128, 0, 128, 0]]


def test_points_at_the_same_position_are_separated():
    def point(value):
        ends = np.asarray([value - 1]), np.asarray([value + 1])
        return Series(f"m{value:g}", np.asarray([[10.0, value]]), *ends, 0, "points")

    drawing = plot("x", [point(1.0), point(2.0)], x_logarithmic=True)
    (a, low), (b, high) = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawing)]
    assert b - a == pytest.approx(7, abs=0.1) and low > high
    assert len(re.findall(r'class="whiskers" d="M[\d.]+ [\d.]+V', drawing)) == 2


def test_rate_plots_over_numbers_and_bits():
    interval = Interval(1.0, 0.9, 1.1)
    systems = (System("m", False, 800.0), System("coded", False, 800.0, 2000.0), System("low-pass", True, 800.0))
    metrics = (MetricInfo("log_mel_l1", "log-mel L1", "", "lower"),)
    means = {system.name: {"log_mel_l1": interval} for system in systems}
    found = Evaluation(systems, metrics, (), {}, means, (), {})
    drawing = rate_distortion(found, {"m": 0, "coded": 1})
    assert drawing.count("<svg") == 2 and drawing.count(">numbers/s<") == drawing.count(">kbit/s<") == 1
    assert drawing.count('class="c0 points"') == 1 and drawing.count('class="c1 points"') == 2
    assert rate_distortion(Evaluation(systems[2:], metrics, (), {}, means, (), {}), {}) == ""

    more = (*systems, System("linear", True, 900.0), *(System(name, True, None, 6e3) for name in ("Opus", "codec2")))
    means |= {system.name: {"log_mel_l1": interval} for system in more}
    numbers, bits = rate_distortion(Evaluation(more, metrics, (), {}, means, (), {}), {"m": 0, "coded": 1}).split(
        "</svg>"
    )[:2]
    assert numbers.count('class="gray dashes"') == 1 and "Opus" not in numbers
    assert "gray dashes" not in bits and bits.count("<title>Opus") == bits.count("<title>codec2") == 1


def robustness_record():
    interval = {"mean": 1.0, "low": 0.5, "high": 1.5}
    means = {name: {"log_mel_l1": [interval] * 2} for name in ("a", "b")}
    floor = {"log_mel_l1": interval}
    return {"snrs_db": ["inf", "-3.0"], "means": means, "matched noise": floor, "clips": [{}, {}]}


def test_robustness_curves_of_the_models_of_the_report(tmp_path):
    write_json(tmp_path / "f.json", robustness_record())
    found = Robustness.load(tmp_path / "f.json")
    assert found.snrs == ("∞", "−3") and found.clips == 2
    write_report(tmp_path / "r.html", title="x", robustness=found.of({"b": None, "c": None}))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "log-mel L1 ↓" in text and ">∞<" in text and ">−3<" in text and "over 2 clips" in text
    assert text.count('class="c0 line"') == 1 and 'class="c1 line"' not in text
    with pytest.raises(PartitaError, match="a, b, .* c;"):
        found.of({"c": None})


@pytest.mark.parametrize("change", [{"clips": 3}, {"snrs_db": ["inf"]}, {"means": []}])
def test_robustness_of_other_files_is_an_error(tmp_path, change):
    write_json(tmp_path / "f.json", robustness_record() | change)
    with pytest.raises(PartitaError, match=r"f\.json"):
        Robustness.load(tmp_path / "f.json")


def decoded(uri, kind):
    assert uri.startswith(f"data:{kind};base64,")
    return io.BytesIO(base64.b64decode(uri.split(",", 1)[1], validate=True))
