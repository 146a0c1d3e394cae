"""From an order to a paid invoice."""

from shop.invoice_total import invoice_total
from shop.money import Money
from shop.order import Order


class Refused(Exception):
    """The payment does not match the invoice."""


def checkout(order: Order, paid: Money) -> str:
    """Accept the payment and return the invoice's text."""
    due = invoice_total(order)
    if paid != due:
        raise Refused(f"{order.customer} paid {paid}, but invoice_total says {due}")
    return f"Invoice for {order.customer}: {due}, paid"
