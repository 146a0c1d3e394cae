"""What a customer wants to buy."""

from dataclasses import dataclass, field

from shop.money import Money


@dataclass(frozen=True)
class Line:
    """One article of an order."""

    article: str
    price: Money
    count: int = 1


@dataclass
class Order:
    """Lines, and the voucher that the customer typed in."""

    customer: str
    lines: list[Line] = field(default_factory=list)
    voucher: str | None = None
