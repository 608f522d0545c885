import numpy as np
import pytest
from partita.evaluation import Bootstrap, Interval
from partita_core import PartitaError


def test_interval_of_many_clips_is_normal():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    interval = Bootstrap(400, resamples=4000).interval(values)
    error = values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_intervals_cover_the_mean_at_their_confidence():
    draws = np.random.default_rng(1).exponential(1.0, size=(300, 60))
    intervals = Bootstrap(60, resamples=1000, confidence=0.9).intervals(draws)
    covered = np.mean([each.low <= 1.0 <= each.high for each in intervals])
    assert 0.83 < covered < 0.95


def test_higher_confidence_gives_a_wider_interval():
    values = np.random.default_rng(2).normal(size=50)
    narrow, wide = (Bootstrap(50, confidence=c).interval(values) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_seeds_give_equal_intervals():
    values = np.random.default_rng(3).normal(size=20)
    assert Bootstrap(20, seed=5).interval(values) == Bootstrap(20, seed=5).interval(values)
    assert Bootstrap(20, seed=5).interval(values) != Bootstrap(20, seed=6).interval(values)


def test_rows_use_the_same_resamples():
    values = np.random.default_rng(4).normal(size=30)
    first, second = Bootstrap(30).intervals(np.stack([values, 2 * values + 1]))
    assert second.low == pytest.approx(2 * first.low + 1) and second.high == pytest.approx(2 * first.high + 1)


def test_paired_differences_have_narrower_intervals():
    generator = np.random.default_rng(5)
    hard = generator.normal(10, 5, size=40)  # what the clips differ in is common to both
    first, second = hard + generator.normal(0, 0.1, 40), hard + 0.5 + generator.normal(0, 0.1, 40)
    bootstrap = Bootstrap(40)
    difference = bootstrap.difference(second, first)
    assert 0.4 < difference.low < 0.5 < difference.high < 0.6
    assert bootstrap.difference(first, first) == Interval(0.0, 0.0, 0.0)


def test_intervals_of_constants_and_single_clips_have_no_width():
    assert Bootstrap(7).interval([0.1] * 7).low == pytest.approx(0.1)
    one = Bootstrap(1).interval([0.3])
    assert one == Interval(0.3, 0.3, 0.3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"clips": 0},
        *({"clips": 3} | one for one in ({"resamples": 0}, {"confidence": 95}, {"seed": -1}, {"seed": 2**63})),
    ],
)
def test_invalid_bootstrap_arguments(arguments):
    with pytest.raises(PartitaError):
        Bootstrap(**arguments)


def test_wrong_number_of_values():
    with pytest.raises(PartitaError, match=r"\(1, 4\).*\(rows, 3\)"):
        Bootstrap(3).interval([1.0, 2.0, 3.0, 4.0])
