"""Where the process is in its life. The application and the server share one of these."""

from dataclasses import dataclass

from .model import ModelCard, ModelError


@dataclass
class Lifecycle:
    """loading -> ready -> draining, or loading -> failed. Plain assignments, so any thread may make them."""

    card: ModelCard | None = None
    failure: ModelError | None = None
    draining: bool = False

    @property
    def loading(self) -> bool:
        return self.card is None and self.failure is None

    @property
    def unready(self) -> str | None:
        """Why no new work should be sent here; None when it should."""
        if self.failure is not None:
            return f"failed: {self.failure}"
        if self.draining:
            return "draining"
        return "loading the model" if self.loading else None
