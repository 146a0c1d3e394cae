"""Totals with and without voucher and shipping."""

from shop import Money, invoice_total
from shop.order import Line, Order


def test_shipping_is_added_below_the_limit():
    order = Order("Ada", [Line("Poster A3", Money(1900))])
    assert invoice_total(order) == Money(2390)


def test_shipping_is_free_from_the_limit_on():
    order = Order("Ada", [Line("Poster A3", Money(2500), 2)])
    assert invoice_total(order) == Money(5000)


def test_a_voucher_counts_before_shipping():
    order = Order("Ada", [Line("Poster A3", Money(2500), 2)], "WELCOME10")
    assert invoice_total(order) == Money(4990)
