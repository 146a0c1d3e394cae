"""Pricing of a small web shop."""

from shop.invoice_total import invoice_total
from shop.money import Money

__all__ = ["Money", "invoice_total"]
