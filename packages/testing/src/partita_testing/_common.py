"""What all suites share: cases, how checks are collected and reported, and what "equal" means."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from partita_core.errors import PartitaError
from partita_core.registry import Config
from torch import Tensor, nn

# "Equal" for what is tiled, streamed, batched and whole, relative to the RMS of what is expected.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}

Check = Callable[[Any], None]


@dataclass(frozen=True)
class Case(ABC):
    """A component under test, and what it is built with.

    Attributes:
        config: its Config.
    """

    config: Config

    @property
    def name(self) -> str:
        """What messages call the component."""
        return getattr(self.config, "tag", type(self.config).__name__)

    @abstractmethod
    def make(self) -> Any:
        """The component as its Config builds it."""

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
        """A fresh component in eval mode, equal for equal seeds.

        Its parameters are moved a little, since layers that begin at zero hide what lies behind them.
        """
        torch.manual_seed(seed)
        part = self.make()
        shake(part)
        return part.to(dtype).eval()


class Suite(Collection[Check]):
    """The checks of one role, in order.

    Iterating gives them, as `pytest.mark.parametrize("check", BOTTLENECK_CHECKS)` does; `suite[name]` is one of them.
    Each takes a Config, or a case where the sizes that a case has by default do not suit, and raises an
    AssertionError that says check, component and figures. The global random numbers are left as they were.
    """

    def __init__(self, role: str, case: type, checks: Iterable[Check] = ()) -> None:
        """Collects `checks`; `case` is the class of cases, with one argument that must be given."""
        self.role, self._case = role, case
        self._checks: dict[str, Check] = {}
        for check in checks:
            self.add(check)

    def add(self, check: Check) -> Check:
        """Adds a function of a case; a decorator."""

        @wraps(check)
        def run(subject: Any) -> None:
            case = subject if isinstance(subject, self._case) else self._case(subject)
            where = f"{self.role} {case.name}: {check.__name__}"
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                try:
                    check(case)
                except AssertionError as error:
                    raise AssertionError(f"{where}: {error}") from None
                except Exception as error:
                    raise AssertionError(f"{where}: raised {type(error).__name__}: {error}") from error

        self._checks[check.__name__] = run
        return check

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the checks, in order."""
        return tuple(self._checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks.values())

    def __len__(self) -> int:
        return len(self._checks)

    def __contains__(self, check: object) -> bool:
        return check in self._checks.values()

    def __getitem__(self, name: str) -> Check:
        return self._checks[name]

    def check(self, subject: Any) -> None:
        """Runs all of them.

        Raises:
            AssertionError: one fails.
        """
        for check in self:
            check(subject)


# ------------------------------------------------------------------ building and running


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Moves every parameter that is trained by a tenth of its RMS, or by 0.02 if that is more."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * rms(parameter).mul(0.1).clamp_min(0.02).to(parameter))


def accepted(build: Callable[[Any], Any], candidates: Iterable[Any], what: str) -> Any:
    """The first of `candidates` with which `build` raises no PartitaError."""
    refusal = None
    for candidate in candidates:
        try:
            build(candidate)
            return candidate
        except PartitaError as error:
            refusal = refusal or error
    raise AssertionError(f"no {what} is accepted; the first was refused with: {refusal}")


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
    """A scalar that everything differentiable in `tree` enters with random weights, so that nothing cancels."""
    tensors = [tensor for tensor in flatten(tree) if tensor.requires_grad]
    expect(bool(tensors), "nothing that is returned carries a gradient")
    parts = [(noise(*t.shape, seed=i, dtype=t.dtype).to(t.device) * t).sum() for i, t in enumerate(tensors)]
    return torch.stack([part.double() for part in parts]).sum()


# ------------------------------------------------------------------ comparing


def expect(condition: bool, message: str) -> None:
    """Raises an AssertionError with `message` unless `condition` holds, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def rms(x: Tensor) -> Tensor:
    """Root mean square of everything."""
    return x.detach().double().square().mean().sqrt() if x.numel() else torch.zeros((), dtype=torch.float64)


def deviation(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the RMS of `expected`."""
    if not expected.numel():
        return 0.0
    difference = (actual.detach().double() - expected.detach().double()).abs().max()
    return float(difference / rms(expected).clamp_min(1e-30)) if difference else 0.0


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Expect a PartitaError of one line."""
    try:
        yield
    except PartitaError as error:
        expect(bool(str(error)) and "\n" not in str(error), f"{what} is not refused in one line, but: {error}")
    else:
        raise AssertionError(f"{what} is accepted")


def expect_equal(actual: Any, expected: Any, what: str, *, exact: bool = False) -> None:
    """Two trees agree: integers, and everything where `exact`, bit for bit; else to `TOLERANCES`."""
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
    """No NaN and no infinity in a tree."""
    for tensor in flatten(tree):
        count = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        expect(count == 0, f"{what}: {count} of {tensor.numel()} elements are not finite")


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers, also of those that are not saved."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def expect_state(module: nn.Module, before: dict[str, Tensor], what: str) -> None:
    """The module's parameters and buffers are still `before`."""
    now = state_of(module)
    expect(now.keys() == before.keys(), f"{what}: tensors {sorted(now.keys() ^ before.keys())} came or went")
    for name, tensor in now.items():
        same = tensor.shape == before[name].shape and bool(((tensor == before[name]) | (tensor != tensor)).all())
        expect(same, f"{what}: {name} has changed")


def random_splits(length: int, seed: int, most: int = 4) -> list[int]:
    """Pieces that add up to `length`, some of them empty, the last one too."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [0]
    while sum(pieces) < length:
        piece = int(torch.randint(0, most + 1, (1,), generator=generator))
        pieces.append(min(piece, length - sum(pieces)))
    return [*pieces, 0]
