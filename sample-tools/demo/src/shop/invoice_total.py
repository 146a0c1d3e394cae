"""The one place that adds up an order."""

from shop.discount import discount
from shop.money import Money
from shop.order import Order

SHIPPING = Money(490)
FREE_SHIPPING_FROM = Money(5000)


def invoice_total(order: Order) -> Money:
    """Goods, less discount, plus shipping."""
    goods = Money(0)
    for line in order.lines:
        goods = goods + line.price.times(line.count)
    goods = goods - discount(goods, order.voucher)
    shipping = Money(0) if goods >= FREE_SHIPPING_FROM else SHIPPING
    return goods + shipping
