"""mpicoded with an exception on rank 2 in round 10: that of the first argument."""

import sys

from mpicoded.cli import main
from mpicoded.errors import InputError
from mpicoded.training.devices import Devices

failure = {
    "bug": ZeroDivisionError("injected"),
    "input": InputError("injected"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
}[sys.argv.pop(1)]
honest = Devices.messages


def messages(self, plan, round, parameters, **more):
    if round == 9 and self.first == 50:  # the block of rank 2 of 4
        raise failure
    return honest(self, plan, round, parameters, **more)


Devices.messages = messages
sys.exit(main())
