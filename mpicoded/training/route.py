"""Where messages are worked on, and how they get from GPUs to the one where they are aggregated."""

from mpicoded.algorithms.component import works_on_gpu
from mpicoded.algorithms.processors import Processor
from mpicoded.experiment import Experiment
from mpicoded.transport.base import Reach, Transport
from mpicoded.wiring import Root


def works_on_cpu(experiment: Experiment) -> str:
    """What of an experiment needs all messages in the CPU's memory before they are sent; empty: nothing."""
    memory, compressor = experiment.memory, experiment.compressor
    for name, needs in (
        (f"memory {memory.name()}", not works_on_gpu(memory, "prepare", "residual", "update", "votes")),
        (f"compressor {compressor.name()}", not works_on_gpu(compressor, "compress", "decompress")),
        ("a fault", bool(experiment.faults)),
    ):
        if needs:
            return f"{name} works on the CPU"
    return ""


def needs_cpu(experiment: Experiment) -> str:
    """Why messages cannot be sent from GPU to GPU, whatever the MPI; empty: they can."""
    attack = experiment.attack
    if why := works_on_cpu(experiment):
        return why
    if not experiment.sends_vectors:
        return f"compressor {experiment.compressor.name()} packs records on the GPU, and the CPU sends them"
    for part, needs in (
        (f"transport {experiment.transport.name()}", type(experiment.transport) is not Root),
        (f"encoder {experiment.encoder.name()}", experiment.encoder.decodes),
        (f"attack {attack.name()}", experiment.attacked and (attack.tampers or not attack.sends)),
    ):
        if needs:
            return f"{part} works on the CPU"
    return ""


def find(experiment: Experiment, transport: Transport, processor: Processor) -> Reach:
    """Whether messages stay on GPUs, and why not. All ranks must ask, of an experiment on GPUs."""
    if why := needs_cpu(experiment):
        return Reach(False, why)
    return transport.reach(processor)
