"""A clock that tests move, and the sleep that moves it."""


class Clock:
    """Seconds that pass only when somebody sleeps or says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        if seconds:
            self.slept.append(seconds)
            self.now += seconds
