"""Whether a device still computes: its thread notes what became of its batches, and everybody may ask."""

import time
from collections.abc import Callable
from dataclasses import dataclass

FAILED_BATCHES = 3  # in a row, before the device itself is tried
TRIAL_SECONDS = 1.0  # between two trials of a device that does not compute


class DeviceLost(Exception):
    """A device did not come back: only another process, or another node, may help."""

    exit_code = 8


@dataclass(frozen=True)
class Trouble:
    """Why a device does not compute, and since when (time.monotonic())."""

    reason: str
    since: float


class Watchdog:
    """The state of one device. Only its own thread calls `run`; assignments are atomic, so anybody may call `trouble`.

    A request that cannot be computed is no fault of the device. After FAILED_BATCHES it is therefore tried with zeros
    in the shape of the last instance, and again from time to time until that works.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._began: float | None = None
        self._failed = 0
        self._lost: Trouble | None = None
        self._trial: Callable[[], object] | None = None

    @property
    def idle_seconds(self) -> float | None:
        """How long the device's thread may wait for work before it calls `try_again`; None: for ever."""
        return TRIAL_SECONDS if self._lost else None

    def trouble(self, now: float, seconds: float) -> Trouble | None:
        """None while the device computes: no batch takes longer than `seconds`, and not all that is tried fails."""
        began = self._began
        if began is not None and now - began >= seconds:
            return Trouble(f"{self._device}: a batch is not computed within {seconds:g} s", began + seconds)
        return self._lost

    def run(self, compute: Callable[[], None], trial: Callable[[], object]) -> Exception | None:
        """Has a batch computed. What it raised is returned, and `trial` decides whether the device is to blame."""
        error = self._timed(compute)
        if error is None:
            self._well()
            return None
        self._failed += 1
        self._trial = trial
        return error

    def try_again(self) -> None:
        """Tries the device, if so much has failed that it may be lost."""
        trial, self._trial = self._trial, None  # it holds on to a model
        if self._failed < FAILED_BATCHES or trial is None:
            return
        error = self._timed(trial)
        if error is None:
            self._well()
            return
        self._trial = trial
        if self._lost is None:
            said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            self._lost = Trouble(f"{self._device}: {self._failed} batches in a row failed: {said}", time.monotonic())

    def _timed(self, compute: Callable[[], object]) -> Exception | None:
        self._began = time.monotonic()
        try:
            compute()
        except Exception as error:
            return error
        finally:
            self._began = None
        return None

    def _well(self) -> None:
        self._failed, self._lost, self._trial = 0, None, None
