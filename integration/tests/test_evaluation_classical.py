"""Classical codecs: their names, alignment, bits, and round trips where the programs are installed."""

import math

import pytest
import torch
from partita.evaluation import evaluate
from partita.evaluation.alignment import align
from partita.evaluation.classical import ClassicalCodec, run_program
from partita.evaluation.classical_codecs import MP3, Codec2, Opus, Packets, Speex, ogg_packets, parse_classical
from partita_core import PartitaError

RATE = 16_000


def voice(channels=1, seconds=2.0, rate=RATE):
    """A gliding harmonic sound with pauses."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    phase = 2 * math.pi * (140 * t + 20 * torch.sin(2 * math.pi * 0.7 * t))
    tones = sum(torch.sin(k * phase) / k for k in range(1, 12))
    envelope = torch.sin(2 * math.pi * 1.5 * t).clamp_min(0)
    return (0.2 * tones * envelope).float().expand(channels, -1).clone()


def si_sdr(estimate, reference):
    scale = (estimate * reference).sum() / reference.square().sum()
    error = estimate - scale * reference
    return float(10 * torch.log10((scale * reference).square().sum() / error.square().sum()))


class Late(ClassicalCodec):
    """A codec without programs: 8 kHz, one channel, late by `late` samples where it states a delay of `stated`."""

    programs = ()
    package = "none"
    rates = (8000,)

    def __init__(self, late: int, stated: int, keeps_waveform: bool) -> None:
        self.late, self.stated, self.keeps_waveform = late, stated, keeps_waveform

    @property
    def name(self):
        return "late"

    def run(self, audio, rate, folder):
        assert rate == 8000 and audio.shape[0] == 1 and not list(folder.iterdir())
        return Packets(torch.nn.functional.pad(audio, (self.late, 0)), rate, self.stated / rate, audio.shape[-1])


@pytest.mark.parametrize("late", [0, 7, -5, 800])
def test_align_recovers_known_and_searched_delays(late):
    clip = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    moved = torch.nn.functional.pad(clip, (late, 0)) if late > 0 else clip[:, -late:]
    inside = slice(max(0, -late), None)
    for found in (align(moved, clip, known=late), align(moved, clip, known=late + 3, search=3)):
        assert found.shape == clip.shape
        torch.testing.assert_close(found[:, inside], clip[:, inside])
    wrong = align(moved, clip, known=late + 3, search=2)
    assert si_sdr(wrong, clip) < 0


def test_codec_is_aligned_by_its_known_delay():
    clip = voice(2)
    exact = Late(100, 100, False).code(clip, RATE)
    assert exact.bits == 16_000 and exact.audio.shape == clip.shape
    assert si_sdr(exact.audio, clip) > 30 and torch.equal(exact.audio[0], exact.audio[1])
    near = Late(101, 100, True).code(clip, RATE)  # 2 samples at 16 kHz, within the slack
    assert si_sdr(near.audio, clip) > 30
    # Without a waveform in common, correlation is not used: the stated delay stands.
    assert si_sdr(Late(101, 100, False).code(clip, RATE).audio, clip) < 25
    # A deviation beyond the slack is not compensated.
    assert si_sdr(Late(300, 100, True).code(clip, RATE).audio, clip) < 5


def test_classical_codecs_are_references_with_the_rate_of_their_packets():
    clips = [("a", voice(seconds=1), "mono"), ("b", voice(2, seconds=3), "stereo")]
    found = evaluate({}, clips, ["si_sdr"], sample_rate=RATE, classical=[Late(100, 100, False)])
    assert [system.name for system in found.systems] == ["silence", "matched noise", "late"]
    (late,) = found.systems[2:]
    assert late.reference and late.bit_rate == 8000 and late.floats_per_second is None  # Late counts its samples
    assert found.means["late"]["si_sdr"].low > 30
    with pytest.raises(PartitaError, match="'late'"):
        evaluate({}, clips, ["si_sdr"], sample_rate=RATE, classical=[Late(0, 0, False), Late(1, 1, False)])


def test_evaluate_leaves_out_codecs_without_programs(run, ok, refused, tones, tmp_path, monkeypatch):
    command = ("evaluate", run / "model", "--data", tones, "--metrics", "si_sdr", "--references")
    assert "'opus:5'" in refused(*command, "opus:5,mp3:32")
    assert "''" in refused(*command, "opus:6,")
    monkeypatch.setenv("PATH", str(tmp_path))
    out, said = ok(*command, "opus:6:60,speex:wb:2,codec2:3200,opus:6:60")
    assert "Opus" not in out and "codec2" not in out
    (line,) = (line for line in said.splitlines() if "left out" in line)
    assert line.count("Opus 6 kbit/s, 60 ms") == 1 and "Speex WB, quality 2" in line and "codec2 3200" in line
    assert "apt-get install opus-tools speex codec2" in line


def test_evaluate_shows_the_rate_of_opus(run, ok, tones):
    codec_or_skip("opus:24:cbr")
    out, _ = ok("evaluate", run / "model", "--data", tones, "--metrics", "si_sdr", "--references", "opus:24:cbr")
    (row,) = (line.split("|") for line in out.splitlines() if line.startswith("| Opus 24 kbit/s, 20 ms, CBR |"))
    assert row[3].strip() == "–" and 24 <= float(row[4]) < 29  # clips of half a second end within a frame
    assert "− Opus 24 kbit/s" in out


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        ("opus:6", Opus(6), "Opus 6 kbit/s, 20 ms"),
        ("opus:6:60", Opus(6, 60), "Opus 6 kbit/s, 60 ms"),
        ("opus:24:cbr", Opus(24, constant=True), "Opus 24 kbit/s, 20 ms, CBR"),
        ("opus:9.5:2.5:cbr", Opus(9.5, 2.5, True), "Opus 9.5 kbit/s, 2.5 ms, CBR"),
        ("codec2:700C", Codec2("700C"), "codec2 700C"),
        ("speex:nb:0", Speex("nb", 0), "Speex NB, quality 0"),
        ("speex:wb:10", Speex("wb", 10), "Speex WB, quality 10"),
        ("mp3:32", MP3(32), "MP3 32 kbit/s"),
    ],
)
def test_parse_classical(text, codec, name):
    assert parse_classical(text) == codec and codec.name == name


@pytest.mark.parametrize(
    "text",
    "opus opus:5 opus:x opus:nan opus:6:30 opus:6:20:cbr:1 opus:cbr codec2 codec2:3100 codec2:3200:1 speex:2"
    " speex:uwb:2 speex:nb:11 speex:nb mp3 mp3:7 mp3:32:1 flac:1".split()
    + [""],
)
def test_parse_classical_names_the_texts_it_accepts(text):
    with pytest.raises(PartitaError, match=r"opus:KBITS.*codec2:MODE.*speex:nb.*mp3:KBITS") as error:
        parse_classical(text)
    assert repr(text) in str(error.value) and "\n" not in str(error.value)


def test_sample_rates_of_codecs():
    assert [Opus(6).own_rate(rate) for rate in (8000, 11025, 16000, 22050, 44100, 96000)] == [
        8000,
        12000,
        16000,
        24000,
        48000,
        48000,
    ]
    assert [MP3(32).own_rate(rate) for rate in (8000, 16000, 44100, 96000)] == [8000, 16000, 44100, 48000]
    assert [Speex(band, 1).own_rate(48000) for band in ("nb", "wb")] == [8000, 16000]


def page(*lacing: int) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(lacing), *lacing]) + bytes(sum(lacing))


def test_ogg_packets_are_counted_without_pages_and_headers():
    headers = page(19) + page(255, 255) + page(100)  # the second header continues on another page
    assert ogg_packets(headers) == []
    assert ogg_packets(headers + page(15, 15, 0, 255, 7)) == [15, 15, 0, 262]
    assert ogg_packets(headers + page(3, 255) + page(255, 0)) == [3, 510]  # a multiple of 255 ends with 0


def test_missing_and_failing_programs_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for text, package in (
        ("opus:6", "opus-tools"),
        ("codec2:3200", "codec2"),
        ("speex:nb:2", "speex"),
        ("mp3:8", "lame"),
    ):
        codec = parse_classical(text)
        assert codec.missing() == list(codec.programs)
        with pytest.raises(PartitaError) as error:
            codec.code(voice(), RATE)
        assert f"apt-get install {package}" in str(error.value) and codec.programs[-1] in str(error.value)
        assert "\n" not in str(error.value)
    script = tmp_path / "fails"
    script.write_text("#!/bin/sh\necho first >&2\necho the reason >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(PartitaError, match="fails .* 3: the reason"):
        run_program("fails", "argument")


def codec_or_skip(text: str) -> ClassicalCodec:
    codec = parse_classical(text)
    if codec.missing():
        pytest.skip(f"{' and '.join(codec.missing())} are not installed")
    return codec


# SI-SDR in dB, and bits per second within 15 %.
@pytest.mark.parametrize(
    ("text", "rate", "channels", "least", "bits"),
    [
        ("opus:16", RATE, 1, 8, None),
        ("opus:24:60:cbr", 44_100, 2, 8, 24_000),
        ("opus:9:60:cbr", RATE, 1, 3, 9000),
        ("mp3:32", RATE, 1, 12, 32_000),
        ("mp3:64", 44_100, 2, 12, 64_000),
        ("mp3:24", 44_100, 1, 10, 24_000),
    ],
)
def test_round_trips(text, rate, channels, least, bits):
    clip = voice(channels, rate=rate)
    found = codec_or_skip(text).code(clip, rate)
    assert found.audio.shape == clip.shape and found.audio.dtype == clip.dtype
    assert si_sdr(found.audio, clip) > least
    assert bits is None or found.bits / 2 == pytest.approx(bits, rel=0.15)


def assert_envelopes_are_aligned(estimate, reference):
    """Compare levels of 20 ms, every 10 ms: a vocoder does not keep the waveform, and Speex filters it."""
    both = [torch.nn.functional.avg_pool1d(x.abs()[None], 320, 160)[0, 0] for x in (estimate, reference)]
    first, second = (x - x.mean() for x in both)
    correlation = [float((first.roll(-shift) * second).sum()) for shift in range(-6, 7)]
    assert abs(correlation.index(max(correlation)) - 6) <= 1


@pytest.mark.parametrize("mode", Codec2.FRAMES)
def test_codec2_is_aligned_and_its_bits_are_those_of_the_mode(mode):
    clip = voice()
    found = codec_or_skip(f"codec2:{mode}").code(clip, RATE)
    assert found.audio.shape == clip.shape
    bits, hop = Codec2.FRAMES[mode]
    assert found.bits == math.ceil((2 * 8000 + (240 if mode == "700C" else 160)) / hop) * bits
    assert found.bits / 2 == pytest.approx(int(mode.rstrip("C")), rel=0.03)
    assert_envelopes_are_aligned(found.audio, clip)


@pytest.mark.parametrize(("text", "bits"), [("speex:nb:6", 11_000), ("speex:nb:0", 2150), ("speex:wb:8", 27_800)])
@pytest.mark.parametrize("seconds", [2, 7])  # an Ogg stream of one page, and of several
def test_speex_is_aligned_and_its_bits_are_those_of_the_packets(text, bits, seconds):
    clip = voice(2, seconds)
    found = codec_or_skip(text).code(clip, RATE)
    assert torch.equal(found.audio[0], found.audio[1])
    assert found.bits / seconds == pytest.approx(bits, rel=0.15)  # whole bytes per packet
    assert_envelopes_are_aligned(found.audio, clip)


def test_speex_is_aligned_to_the_sample():
    """A click, which the codec filters but does not move."""
    codec = codec_or_skip("speex:wb:10")
    for samples in (RATE, 7 * RATE):
        clip = torch.zeros(1, samples)
        clip[0, 8000] = 0.9
        found = codec.code(clip, RATE).audio
        assert abs(int(found[0].abs().argmax()) - 8000) <= 3


@pytest.mark.parametrize("text", ["opus:6", "codec2:3200", "speex:nb:2", "mp3:32"])
@pytest.mark.parametrize("samples", [1, 500])
def test_short_and_silent_clips(text, samples):
    codec = codec_or_skip(text)
    found = codec.code(torch.zeros(2, samples), RATE)
    assert found.audio.shape == (2, samples) and found.bits > 0
    assert found.audio.abs().max() < 0.05
