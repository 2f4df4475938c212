"""How many bytes of bodies that came, and of answers that nobody has read yet, may be in memory at once."""

BYTES_PER_BODY_BYTE = 3  # the body, and as numbers twice as much: `1,` are two bytes of JSON and four of a float32


class InFlight:
    """A budget in bytes. It belongs to the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.used = 0

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more, which then count until they are given back."""
        if self.used + size > self._most:
            return False
        self.used += size
        return True

    def add(self, size: int) -> None:
        """Counts what is there anyway, and lets nothing new in until enough of it has gone."""
        self.used += size

    def give(self, size: int) -> None:
        self.used -= size
