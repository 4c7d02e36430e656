"""Which layer of a student an operation of its model file comes from, told by values and not by names.

Converters rename, fuse, fold and reorder; LiteRT's names leave out the lists that layers stand in, and ONNX files have
theirs stripped. But every tensor a file holds on the way is one that torch holds too, in another layout at most. So
both run on one picture and their tensors are compared; torch knows the layer of each of its own.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from models.file_graph import Operation, Values
from models.steps import Step

Array = npt.NDArray[np.float32]
CLOSE = 1e-4  # of a tensor's largest value; float32 on another runtime differs by about 1e-6 of it
FAR = 4  # steps that one operation of a file may stand for
Key = tuple[int, ...]


class Layers:
    """The steps of a student that each tensor of its file agrees with, on one picture."""

    def __init__(
        self, steps: Sequence[Step], of_torch: Values, operations: Sequence[Operation], of_file: Values
    ) -> None:
        self.steps = {step.name: step for step in steps}
        self._users: dict[str, list[Step]] = {name: [] for name in self.steps}
        for step in steps:
            for name in step.inputs:
                self._users.setdefault(name, []).append(step)
        self._by_key: dict[Key, list[tuple[str, Array]]] = {}
        for name, value in of_torch.items():
            if name in self.steps and value.dtype == np.float32:
                self._by_key.setdefault(key(value.shape), []).append((name, value))
        self._matches: dict[str, frozenset[str]] = {}
        self._maker = {one.output: one for one in operations}
        for name in {name for one in operations for name in one.inputs} - self._maker.keys():
            self._matches[name] = self._equal(of_file[name]) if name in of_file else frozenset()
        for one in operations:
            self._matches[one.output] = self._match(one, of_file.get(one.output))

    def agree(self, tensor: str) -> bool:
        """Whether torch holds this tensor of the file too."""
        return bool(self._matches.get(tensor))

    def first_step(self, operation: Operation) -> Step | None:
        """The first of the steps that an operation stands for; None where nothing tells."""
        sources = [self._matches.get(name, frozenset()) for name in operation.inputs]
        before = frozenset[str]().union(*sources)
        if not before:
            # In the middle of what is one step for torch, such as a norm: it begins where torch is met again.
            makers = [self._maker[name] for name in operation.inputs if name in self._maker]
            return self.first_step(makers[0]) if makers else None
        after = self._matches.get(operation.output, frozenset()) - before
        if after:
            between = self._between(before, next(name for name in self.steps if name in after))
            if between:
                return between[0]
        return self._next(sources, before, operation.shape)

    def _match(self, one: Operation, value: Array | None) -> frozenset[str]:
        """The steps with this very output; where torch has none of that shape, the inputs', if all have some."""
        if value is not None and key(value.shape) in self._by_key:
            return self._equal(value)
        sources = [self._matches.get(name, frozenset()) for name in one.inputs]
        return frozenset[str]().union(*sources) if all(sources) else frozenset()

    def _equal(self, value: Array) -> frozenset[str]:
        return frozenset(name for name, ours in self._by_key.get(key(value.shape), []) if close(ours, value))

    def _between(self, before: frozenset[str], last: str) -> list[Step]:
        """The steps from `before`, without them, to `last`, in order."""
        seen: set[str] = set()
        left = [last]
        while left:
            name = left.pop()
            if name in self.steps and name not in before and name not in seen:
                seen.add(name)
                left += self.steps[name].inputs
        return [step for name, step in self.steps.items() if name in seen]

    def _next(self, sources: Sequence[frozenset[str]], before: frozenset[str], shape: Iterable[int]) -> Step | None:
        """The first step after these that takes all of them, or any, and leads to such a shape, or anywhere."""
        users = [
            step
            for name, step in self.steps.items()
            if name not in before and any(one in before for one in step.inputs)
        ]
        all_of_them = [step for step in users if all(source & set(step.inputs) for source in sources)]
        wanted = key(tuple(shape))
        for choice in (all_of_them, users):
            fitting = [step for step in choice if self._leads_to(step, wanted)]
            if fitting:
                return fitting[0]
        return (all_of_them or users or [None])[0]

    def _leads_to(self, step: Step, wanted: Key) -> bool:
        reached = [step]
        for _ in range(FAR):
            if any(key(one.shape) == wanted for one in reached):
                return True
            reached = [user for one in reached for user in self._users[one.name]]
        return False


def key(shape: Sequence[int]) -> Key:
    """What a shape has in common in every layout."""
    return tuple(sorted(size for size in shape if size != 1))


def close(ours: Array, theirs: Array) -> bool:
    """Whether two tensors hold the same values, channels first or last."""
    mine, other = ours.squeeze(), theirs.squeeze()
    forms = [mine, mine.transpose(1, 2, 0), mine.transpose(2, 0, 1)] if mine.ndim == 3 else [mine]
    limit = CLOSE * max(float(np.abs(mine).max(initial=0.0)), 1e-30)
    return any(form.shape == other.shape and float(np.abs(form - other).max(initial=0.0)) <= limit for form in forms)
