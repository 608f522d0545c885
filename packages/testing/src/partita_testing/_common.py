"""Common parts of the suites: cases, checks and their reports, and comparison of results."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest import SkipTest

import torch
from partita_core.errors import PartitaError
from partita_core.registry import Config
from torch import Tensor, nn

# Maximum deviation of tiled, streamed and batched results, relative to the RMS of the expected ones.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Check:
    """A check of a suite.

    Attributes:
        function: function of a case that raises an AssertionError if the check fails.
        fix: advice that ends the message of a failure.
        requires: checks without which this one has no meaning.
    """

    function: Callable[[Any], None]
    fix: str
    requires: tuple["Check", ...] = ()

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, case: Any) -> None:
        """Run the check on a case."""
        self.function(case)


def check(*requires: Check, fix: str) -> Callable[[Callable[[Any], None]], Check]:
    """Make a check of a function of a case; a decorator.

    Args:
        *requires: checks to run if this one fails: if one of them fails too, this one is skipped.
        fix: advice that ends the message of a failure.
    """
    return lambda function: Check(function, fix, requires)


@dataclass(frozen=True)
class Case(ABC):
    """A component under test, and the values it is built with.

    Attributes:
        config: Config of the component.
    """

    config: Config

    @property
    def name(self) -> str:
        """Name of the component in messages."""
        return getattr(self.config, "tag", type(self.config).__name__)

    @abstractmethod
    def make(self) -> Any:
        """Build the component from its Config."""

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
        """Build a component in eval mode, equal for equal seeds.

        Its parameters are perturbed, since layers that are initialized to zero would hide those before them.
        """
        torch.manual_seed(seed)
        part = self.make()
        shake(part)
        return part.to(dtype).eval()


Run = Callable[[Any], None]


class Suite(Collection[Run]):
    """The checks of one role, in order.

    Iterate over it for one test per check, as in `pytest.mark.parametrize("check", BOTTLENECK_CHECKS)`; `suite[name]`
    is a single check. A check takes a Config, or a case if the default sizes of the case do not suit. If it fails, it
    raises an AssertionError that names the check, the component and the measured values, and ends in the fix. If a
    check that it requires fails too, it raises `unittest.SkipTest` instead, which pytest reports as skipped. The
    global random state is preserved.
    """

    def __init__(self, role: str, case: type, checks: Iterable[Check]) -> None:
        """Collect checks.

        Args:
            role: name of the role in messages.
            case: class of the cases, built from one argument.
            checks: the checks, each after those that it requires.
        """
        self.role, self._case = role, case
        self._checks = {check.__name__: self._run(check) for check in checks}

    def _run(self, check: Check) -> Run:
        @wraps(check.function)
        def run(subject: Any) -> None:
            case = subject if isinstance(subject, self._case) else self._case(subject)
            where = f"{self.role} {case.name}: {check.__name__}"
            failure = _failure(check, case)
            if failure is None:
                return
            failed = next((other for other in check.requires if _failure(other, case) is not None), None)
            if failed is not None:
                raise SkipTest(f"{where} requires {failed.__name__}, which fails")
            cause = None if isinstance(failure, AssertionError) else failure
            said = str(failure) if cause is None else f"raised {type(failure).__name__}: {failure}"
            raise AssertionError(f"{where}: {said}; {check.fix}") from cause

        return run

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the checks, in order."""
        return tuple(self._checks)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._checks.values())

    def __len__(self) -> int:
        return len(self._checks)

    def __contains__(self, check: object) -> bool:
        return check in self._checks.values()

    def __getitem__(self, name: str) -> Run:
        return self._checks[name]

    def check(self, subject: Any) -> None:
        """Run all checks on a component.

        Args:
            subject: Config of the component, or a case; for codecs, a function that returns one.

        Raises:
            AssertionError: checks fail; all of them are listed, except those that require another failing one.
        """
        failures = []
        for check in self:
            try:
                check(subject)
            except SkipTest:
                continue
            except AssertionError as error:
                failures.append(str(error))
        if failures:
            raise AssertionError("\n".join(failures))


def _failure(check: Check, case: Any) -> Exception | None:
    """Run a check with a fixed random state; the exception that it raises, or None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            check(case)
        except Exception as error:
            return error
    return None


# ------------------------------------------------------------------ building and running


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Perturb every trained parameter by a tenth of its RMS, or by 0.02 if that is more."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * rms(parameter).mul(0.1).clamp_min(0.02).to(parameter))


def first_accepted(build: Callable[[Any], Any], candidates: Iterable[Any], what: str) -> Any:
    """Return the first of `candidates` for which `build` raises no PartitaError."""
    first_error = None
    for candidate in candidates:
        try:
            build(candidate)
            return candidate
        except PartitaError as error:
            first_error = first_error or error
    raise AssertionError(f"no {what} is accepted; the first one tried raised: {first_error}")


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal noise that depends on `seed` only."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def flatten(tree: Any) -> list[Tensor]:
    """The tensors in a tree of tensors, tuples, lists, dicts and None."""
    if tree is None:
        return []
    if isinstance(tree, Tensor):
        return [tree]
    branches = tree.values() if isinstance(tree, dict) else tree
    return [tensor for branch in branches for tensor in flatten(branch)]


def total(tree: Any) -> Tensor:
    """Sum the differentiable tensors in `tree` with random weights, so that gradients do not cancel."""
    tensors = [tensor for tensor in flatten(tree) if tensor.requires_grad]
    expect(bool(tensors), "no returned tensor has a gradient")
    parts = [(noise(*t.shape, seed=i, dtype=t.dtype).to(t.device) * t).sum() for i, t in enumerate(tensors)]
    return torch.stack([part.double() for part in parts]).sum()


# ------------------------------------------------------------------ comparing


def expect(condition: bool, message: str) -> None:
    """Raise an AssertionError with `message` unless `condition` holds, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def rms(x: Tensor) -> Tensor:
    """Root mean square over all elements."""
    return x.detach().double().square().mean().sqrt() if x.numel() else torch.zeros((), dtype=torch.float64)


def deviation(actual: Tensor, expected: Tensor) -> float:
    """Maximum absolute difference, relative to the RMS of `expected`."""
    if not expected.numel():
        return 0.0
    difference = (actual.detach().double() - expected.detach().double()).abs().max()
    return float(difference / rms(expected).clamp_min(1e-30)) if difference else 0.0


@contextmanager
def raises_partita_error(what: str) -> Iterator[None]:
    """Expect a PartitaError with a message of one line."""
    try:
        yield
    except PartitaError as error:
        expect(bool(str(error)) and "\n" not in str(error), f"the message for {what} is not one line: {error}")
    else:
        raise AssertionError(f"{what} raises no PartitaError")


def expect_equal(actual: Any, expected: Any, what: str, *, exact: bool = False) -> None:
    """Expect equal trees: floating-point tensors to `TOLERANCES`, all others, and all if `exact`, bit for bit."""
    actual, expected = flatten(actual), flatten(expected)
    expect(len(actual) == len(expected), f"{what}: {len(actual)} tensors instead of {len(expected)}")
    for a, b in zip(actual, expected):
        expect(a.shape == b.shape, f"{what}: {tuple(a.shape)} instead of {tuple(b.shape)}")
        expect(a.dtype == b.dtype, f"{what}: {a.dtype} instead of {b.dtype}")
        if exact or not b.is_floating_point():
            count = int((a != b).sum())
            expect(count == 0, f"{what}: {count} of {b.numel()} elements differ, by {deviation(a, b):.2g} of the RMS")
        else:
            off, limit = deviation(a, b), TOLERANCES.get(b.dtype, 1e-2)
            expect(off <= limit, f"{what}: differs by {off:.2g} of the RMS, {limit:g} is allowed")


def expect_finite(tree: Any, what: str) -> None:
    """Expect no NaN and no infinity in a tree."""
    for tensor in flatten(tree):
        count = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        expect(count == 0, f"{what}: {count} of {tensor.numel()} elements are not finite")


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copy all parameters and buffers, including non-persistent ones."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def expect_state(module: nn.Module, before: dict[str, Tensor], what: str) -> None:
    """Expect the parameters and buffers to equal `before`."""
    now = state_of(module)
    expect(now.keys() == before.keys(), f"{what}: tensors {sorted(now.keys() ^ before.keys())} were added or removed")
    for name, tensor in now.items():
        same = tensor.shape == before[name].shape and bool(((tensor == before[name]) | (tensor != tensor)).all())
        expect(same, f"{what}: {name} has changed")


def random_splits(length: int, seed: int, max_piece: int = 4) -> list[int]:
    """Random piece lengths from 0 to `max_piece` that add up to `length`; the last one is 0."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [0]
    while sum(pieces) < length:
        piece = int(torch.randint(0, max_piece + 1, (1,), generator=generator))
        pieces.append(min(piece, length - sum(pieces)))
    return [*pieces, 0]
