"""Payments that match, and that do not."""

import pytest

from shop import Money, invoice_total
from shop.checkout import Refused, checkout
from shop.order import Line, Order

ORDER = Order("Grace", [Line("Card", Money(350), 4)])


def test_the_exact_amount_is_accepted():
    assert checkout(ORDER, invoice_total(ORDER)) == "Invoice for Grace: 18.90 EUR, paid"


def test_another_amount_is_refused():
    with pytest.raises(Refused):
        checkout(ORDER, Money(1))
