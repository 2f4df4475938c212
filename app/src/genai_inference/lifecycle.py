"""Where the process is in its life. The application and the server share one of these."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .model import ModelError
from .watchdog import DeviceLost, Trouble


@dataclass
class Lifecycle:
    """loading -> ready -> draining, or loading -> failed. Plain assignments, so any thread may make them."""

    loaded: bool = False
    failure: ModelError | DeviceLost | None = None
    draining: bool = False
    drained: bool = False  # nothing is left to wait for: only a worker knows that of itself
    trouble: Callable[[], Trouble | None] = lambda: None  # of a device, now
    # What does not work although requests are answered: {part: reason}.
    degraded: dict[str, str] = field(default_factory=dict)

    def degrade(self, part: str, reason: str | None) -> None:
        """Notes why a part does not work, or that it does (None)."""
        if reason is None:
            self.degraded.pop(part, None)
        else:
            self.degraded[part] = reason

    @property
    def unready(self) -> str | None:
        """Why no new work should be sent here; None when it should."""
        if self.failure is not None:
            return f"failed: {self.failure}"
        if self.draining:
            return "draining"
        if not self.loaded:
            return "loading the model"
        trouble = self.trouble()
        return trouble.reason if trouble else None
