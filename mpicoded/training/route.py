"""How messages get from the GPUs where they are computed to the one where they are aggregated."""

from mpicoded.algorithms.component import known_with
from mpicoded.algorithms.memories import NoMemory
from mpicoded.algorithms.processors import Processor
from mpicoded.experiment import Experiment
from mpicoded.transport.base import Reach, Transport
from mpicoded.wiring import Root


def needs_cpu(experiment: Experiment) -> str:
    """What of an experiment works on messages in the CPU's memory; empty: nothing but attacks on their own rows."""
    attack = experiment.attack
    for part, needs in (
        (f"transport {experiment.transport.name()}", type(experiment.transport) is not Root),
        (f"compressor {experiment.compressor.name()}", not experiment.sends_vectors),
        (f"memory {experiment.memory.name()}", type(experiment.memory) is not NoMemory),
        (f"encoder {experiment.encoder.name()}", experiment.encoder.decodes),
        (f"attack {attack.name()}", experiment.attacked and (attack.tampers or not attack.sends)),
        ("a fault", bool(experiment.faults)),
    ):
        if needs:
            return f"{part} works on the CPU"
    return ""


def packs_there(experiment: Experiment) -> bool:
    """Whether messages are compressed where they are computed, so that their records alone leave a GPU."""
    part = experiment.compressor
    knows = part.on_gpu and known_with(part, "on_gpu", "compress")
    return knows and type(experiment.memory) is NoMemory and not experiment.faults


def find(experiment: Experiment, transport: Transport, processor: Processor) -> Reach:
    """Whether messages stay on GPUs, and why not. All ranks must ask, of an experiment on GPUs."""
    if packs_there(experiment):
        name = experiment.compressor.name()
        return Reach(False, f"compressor {name} packs records on the GPU, and the CPU sends them")
    if why := needs_cpu(experiment):
        return Reach(False, why)
    return transport.reach(processor)
