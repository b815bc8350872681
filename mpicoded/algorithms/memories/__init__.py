"""What devices and server remember of messages: momentum, error feedback, variance reduction.

Gradients → ``prepare`` → what an honest device says → [attack] → ``residual`` → compress → the wire → decompress →
``update`` at the device, ``votes`` at the server.
"""

from mpicoded.algorithms.memories.base import Memory, NoMemory, Turn
from mpicoded.algorithms.memories.feedback import Dm21, Ef21
from mpicoded.algorithms.memories.momentum import Momentum, ServerMomentum
from mpicoded.algorithms.memories.variance_reduction import DashaPage, Marina

Choice = NoMemory | Momentum | ServerMomentum | Ef21 | Dm21 | Marina | DashaPage

__all__ = ["Choice", "DashaPage", "Dm21", "Ef21", "Marina", "Memory", "Momentum", "NoMemory", "ServerMomentum", "Turn"]
