"""Remembers totals of orders that do not change any more.

`invoice_totals` is a name of its own, not another spelling of `invoice_total`.
"""

from shop.invoice_total import invoice_total
from shop.money import Money
from shop.order import Order

invoice_totals: dict[int, Money] = {}


def cached_invoice_total(number: int, order: Order) -> Money:
    """The total of invoice `number`, computed once."""
    if number not in invoice_totals:
        invoice_totals[number] = invoice_total(order)
    return invoice_totals[number]
