"""A GPU as the preflight sees it."""

from reproduction.running.memory import Gpu


def gpu(gigabytes: float, *, name: str = "A GPU", capability: tuple[int, int] = (8, 0)) -> Gpu:
    return Gpu(name=name, memory=int(gigabytes * 1e9), capability=capability)
