"""mpicoded with an exception on rank 2 in round 10."""

import sys

from mpicoded.cli import main
from mpicoded.training.devices import Devices

honest = Devices.messages


def messages(self, round, parameters):
    if round == 9 and self.first == 50:  # the block of rank 2 of 4
        raise ZeroDivisionError("injected")
    return honest(self, round, parameters)


Devices.messages = messages
sys.exit(main())
