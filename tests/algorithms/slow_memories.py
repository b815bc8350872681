"""The papers' recursions of one device without lies, a line for each formula."""

import numpy as np

from mpicoded.algorithms.memories import DashaPage, Dm21, Ef21, Marina, Momentum, NoMemory, ServerMomentum


class Slow:
    """One device: ``vote`` is what the server takes for its vote in round t.

    ``x``, ``old``: its gradients on the round's samples at the present and the previous parameters; ``full``: on all
    samples; ``heads``: the round's coin; ``last``: the server's previous aggregate; ``lossy``: what comes out of the
    decompressor.
    """

    def __init__(self, memory, compressor, dim):
        self.memory, self.zero = memory, np.zeros(dim)
        self.delta = compressor.variance(dim)
        self.state = None

    def vote(self, t, x, old, full, heads, last, lossy):
        memory, state, zero = self.memory, self.state, self.zero
        c = 1.0 if self.delta is None else 1 / (1 + self.delta)
        match memory:
            case NoMemory():
                return lossy(x)
            case Momentum(beta=beta):
                self.state = beta * (zero if t == 0 else state) + (1 - beta) * x
                return lossy(self.state)
            case ServerMomentum(beta=beta):
                self.state = beta * (zero if t == 0 else state) + (1 - beta) * lossy(x)
                return self.state
            case Ef21():
                g = zero if t == 0 else state
                self.state = g + c * lossy(x - g)
                return self.state
            case Dm21(eta=eta):
                v, u, g = (x, x, zero) if t == 0 else state
                if t > 0:
                    v = x + (1 - eta) * (v - old) if memory.variance_reduced else (1 - eta) * v + eta * x
                    u = (1 - eta) * u + eta * v
                self.state = v, u, g + c * lossy(u - g)
                return self.state[2]
            case Marina(anchor=anchor):
                self.state = full if heads else (state if anchor == "own" else last) + lossy(x - old)
                return self.state
            case DashaPage():
                a = 1 / (2 * self.delta + 1)
                if t == 0:
                    self.state = full, full
                else:
                    h, g = state
                    new = full if heads else h + x - old
                    self.state = new, g + lossy(new - h - a * (g - h))
                return self.state[1]
