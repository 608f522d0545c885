"""Progress bar of encoding a corpus, over all processes."""

import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .plan import Shard, shard_rows
from .record import CorpusRecord, shard_path


class EncodingProgress:
    """Progress bar over all processes: files, files per second, speed, remaining time; a context manager.

    Args:
        output: folder of the corpus.
        record: its record.
        left: shards to encode.
        own: those that this process encodes.
        shown: show the bar.
    """

    def __init__(
        self, output: Path, record: CorpusRecord, left: Sequence[Shard], own: Sequence[Shard], *, shown: bool
    ) -> None:
        self._output, self._record = output, record
        self._others = set(left) - set(own)
        self._files, self._seconds = 0, 0.0
        self._total_files = sum(len(shard_rows(record, shard)) for shard in left)
        seconds = sum(record.splits[split].seconds[number] for split, number in left)
        total = sum(sum(plan.seconds) for plan in record.splits.values()) or 1.0  # 0 if no header can be read
        self._before, self._start = total - seconds, time.monotonic()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(total=total, initial=self._before, desc="encoding", bar_format=form, disable=not shown)

    def __enter__(self) -> "EncodingProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def count_others(self) -> None:
        """Add the shards that other processes have finished."""
        done = {shard for shard in self._others if shard_path(self._output, *shard).is_file()}
        self._others -= done
        self._files += sum(len(shard_rows(self._record, shard)) for shard in done)
        self._seconds += sum(self._record.splits[split].seconds[number] for split, number in done)

    def advance(self, seconds: float) -> None:
        """Add a file with this many seconds of audio."""
        self._files += 1
        self._seconds += seconds
        passed = max(time.monotonic() - self._start, 1e-9)
        speed = f"{self._files / passed:.1f} files/s, {self._seconds / passed:.0f} x real time"
        self._bar.set_postfix_str(f"{self._files}/{self._total_files} files, {speed}", refresh=False)
        done = min(self._before + self._seconds, self._bar.total)  # headers need not be exact
        self._bar.update(done - self._bar.n)
