"""A clock that tests move, and the sleep that moves it."""


class Clock:
    """Seconds that pass only when somebody sleeps or says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        if seconds:
            self.slept.append(seconds)
            self.now += seconds
