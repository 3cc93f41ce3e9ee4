"""Timers: what each name of them means to this service."""

from typing import TYPE_CHECKING

from libs.common.messaging.timers import Commands, keep_time
from services.checkout.handlers import checkouts, orders

if TYPE_CHECKING:
    from libs.common.processes.parts import Worker

COMMANDS: Commands = {
    checkouts.TIMER: lambda timer: checkouts.WakeCheckout(checkout_id=timer.key),
    orders.LOOKUP_TIMER: orders.send_link_for,
}


async def fire_timers(worker: "Worker") -> None:
    """Wake what asked to be woken."""
    await keep_time(worker.shell, COMMANDS)
