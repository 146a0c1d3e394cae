"""Figures for the owner."""

from collections.abc import Iterable

from shop.invoice_total import invoice_total
from shop.money import Money
from shop.order import Order


def turnover(orders: Iterable[Order]) -> Money:
    """The sum of all invoices."""
    total = Money(0)
    for order in orders:
        total = total + invoice_total(order)
    return total


def largest(orders: Iterable[Order]) -> Order | None:
    """The order with the largest invoice."""
    return max(orders, key=invoice_total, default=None)
