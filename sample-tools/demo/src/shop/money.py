"""Amounts in cents: never floats."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Money:
    """An amount of euros, held in cents."""

    cents: int

    def __add__(self, other: "Money") -> "Money":
        return Money(self.cents + other.cents)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.cents - other.cents)

    def times(self, count: int) -> "Money":
        return Money(self.cents * count)

    def share(self, per_mille: int) -> "Money":
        """A share in thousandths, rounded half up."""
        return Money((self.cents * per_mille + 500) // 1000)

    def __str__(self) -> str:
        sign = "-" if self.cents < 0 else ""
        return f"{sign}{abs(self.cents) // 100}.{abs(self.cents) % 100:02d} EUR"
