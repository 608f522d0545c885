"""The report in a browser: playback, switching of sources, keyboard, and phone layout."""

import math
import shutil
import time

import pytest
import torch
from partita.evaluation import (
    ChannelBalance,
    Clip,
    Evaluation,
    FrechetDistances,
    Interval,
    LatentStatistics,
    MetricInfo,
    Speed,
    System,
)
from partita.report import Robustness, write_report
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

RATE, SECONDS = 8000, 40.0
MODELS = ("a model with quite a long name", "b")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
# What goes to the loudspeaker goes through an analyzer too.
PROBE = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target === this.context.destination) {
    window.probe ??= new AnalyserNode(this.context, { fftSize: 8192, smoothingTimeConstant: 0 });
    connect.call(this, window.probe);
  }
  return connect.call(this, target, ...rest);
};
window.loudest = () => {
  const levels = new Float32Array(window.probe.frequencyBinCount);
  window.probe.getFloatFrequencyData(levels);
  const bin = levels.indexOf(Math.max(...levels));
  return { hertz: (bin * window.probe.context.sampleRate) / window.probe.fftSize, level: levels[bin] };
};
"""


def tone(hertz):
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(int(SECONDS * RATE)) / RATE)[None]


def evaluation():
    names = (*MODELS, "matched noise", "low-pass, 400 numbers/s")
    systems = (
        System(MODELS[0], False, 400.0, None, Speed(12.0, 250.0)),
        System(MODELS[1], False, 800.0, 1200.0, Speed(1.0, 2.0)),
        System(names[2], True),
        System(names[3], True, 400.0),
    )
    metrics = (MetricInfo("log_mel_l1", "log-mel L1", "", "lower"), MetricInfo("si_sdr", "SI-SDR", "dB", "higher"))
    balance = ChannelBalance(1.0, 0.5, 1.5, 2.6, 0, -0.3)
    latents = LatentStatistics(100, balance, (0.6, 0.3, 0.1), (1.2, 1.0, 0.7), (0.1, -0.2, -0.9))
    return Evaluation(
        systems,
        metrics,
        (Clip("first", "mono", SECONDS), Clip("second", "mono", SECONDS)),
        {name: {m.name: (0.25 + i, 0.3 + i) for m in metrics} for i, name in enumerate(names)},
        {name: {m.name: Interval(0.27 + i, 0.25 + i, 0.3 + i) for m in metrics} for i, name in enumerate(names)},
        (),
        {"confidence": 0.95},
        (FrechetDistances("hf:some/embedder-of-a-long-name", 512, 2, dict.fromkeys(names, 1.5)),),
        dict.fromkeys(MODELS, latents),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    means = {name: {"log_mel_l1": tuple(Interval(x, x, x) for x in (0.3, 0.5, 0.9))} for name in MODELS}
    rows = [{"step": step, "total": 3 / (step + 1), "lr/generator": 1e-4} for step in range(20)]
    write_report(
        path,
        title="Two models, heard and seen",
        clips=[(name, tone(440), {MODELS[0]: tone(880), MODELS[1]: tone(1760)}, RATE) for name in ("first", "second")],
        logs=dict.fromkeys(MODELS, rows),
        evaluation=evaluation(),
        robustness=Robustness(("∞", "10", "0"), means, {"log_mel_l1": Interval(1.0, 0.9, 1.1)}, 2),
        models={name: {"made of": "encoder/genae · bottleneck/vae", "parameters": "3.0 M"} for name in MODELS},
        summary=[("Data", "tones")],
        max_seconds=SECONDS,
    )
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("there is no chromium with its chromedriver here; Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(chromedriver)) as found:
        found.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": PROBE})
        yield found


@pytest.fixture
def page(browser, report):
    """The page, opened from disk; afterwards there must be no console messages and no network requests."""
    size(browser, 1280)
    browser.get(report.as_uri())
    yield browser
    assert [line for line in browser.get_log("browser") if line["level"] != "INFO"] == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


def size(browser, width):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def clip(page, index):
    return page.find_elements(By.CSS_SELECTOR, ".clip")[index]


def pick(page, number):
    """Click on a source of the first clip, scrolled to the middle of the screen so that nothing covers it."""
    button = clip(page, 0).find_elements(By.CSS_SELECTOR, ".pick")[number - 1]
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", button)
    button.click()


def position(page, index=0):
    share = clip(page, index).find_element(By.CSS_SELECTOR, ".transport input").get_property("value")
    return float(share) * SECONDS


def press(page, *keys):
    for name in keys:
        webdriver.ActionChains(page).send_keys(name).perform()


def active(page, index=0):
    panels = clip(page, index).find_elements(By.CSS_SELECTOR, ".panel")
    return ["active" in panel.get_attribute("class").split() for panel in panels].index(True)


def playing(page, index=0):
    return "playing" in clip(page, index).get_attribute("class").split()


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def hears(page, hertz):
    found = page.execute_script("return window.probe ? window.loudest() : null")
    if found is None or found["level"] is None:  # minus infinity, before the first sample is heard
        return False
    return found["level"] > -60 and abs(found["hertz"] - hertz) < 15


def test_players_play_and_switching_keeps_the_position(page):
    clip(page, 0).find_element(By.CSS_SELECTOR, ".play").click()
    wait_until(lambda: hears(page, 440))
    assert playing(page) and not playing(page, 1)
    for number, hertz in ((2, 880), (3, 1760), (1, 440)):
        before, begin = position(page), time.monotonic()
        pick(page, number)
        after, elapsed = position(page), time.monotonic() - begin
        assert 0 < before <= after <= before + elapsed + 0.1  # it went on, and neither jumped nor began again
        assert active(page) == number - 1
        wait_until(lambda hertz=hertz: hears(page, hertz))
    clip(page, 1).find_element(By.CSS_SELECTOR, ".play").click()
    wait_until(lambda: playing(page, 1) and not playing(page, 0))  # one at a time


def test_click_on_a_spectrogram_seeks_and_selects(page):
    plot = clip(page, 0).find_elements(By.CSS_SELECTOR, ".plot")[1]
    webdriver.ActionChains(page).move_to_element(plot).click().perform()
    assert position(page) == pytest.approx(SECONDS / 2, rel=0.01) and active(page) == 1  # to the pixel


def test_keyboard_shortcuts(page):
    press(page, "3")
    assert active(page) == 2
    press(page, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert active(page) == 1 and position(page) == pytest.approx(1.0, abs=1e-3)
    press(page, Keys.SPACE)
    wait_until(lambda: position(page) > 1.05)
    press(page, Keys.SPACE)
    stood = position(page)
    assert not playing(page) and stood > 1.05
    press(page, "J", "2")
    assert active(page, 1) == 1 and position(page) == stood and position(page, 1) == 0
    shown = "return getComputedStyle(document.querySelectorAll('.plot')[1].querySelector('img.{}')).display"
    assert page.execute_script(shown.format("levels")) == "block"
    press(page, "d")
    assert page.execute_script(shown.format("levels")) == "none"
    assert page.execute_script(shown.format("differences")) == "block"
    press(page, "d")
    assert page.execute_script(shown.format("differences")) == "none"


def test_all_sections_and_keys_are_listed(page):
    headings = [found.text for found in page.find_elements(By.TAG_NAME, "h2")]
    assert headings == ["Metrics", "Rate and distortion", "Listen", "Robustness", "Latents", "Training", "Models"]
    keys = [found.get_property("textContent") for found in page.find_elements(By.CSS_SELECTOR, ".keys kbd")]
    assert keys == ["space", "1–9", "↑ ↓", "← →", "J K", "D", "esc"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_layout(page, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size(page, 390)
    assert page.execute_script("return document.documentElement.scrollWidth") == 390
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, paper[4:-1].split(","))) < 64) == (scheme == "dark")
    plots = clip(page, 0).find_elements(By.CSS_SELECTOR, ".plot")
    assert [plot.is_displayed() for plot in plots] == [True, False, False]  # only the selected one is shown
    pick(page, 3)
    assert [plot.is_displayed() for plot in plots] == [False, False, True]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
