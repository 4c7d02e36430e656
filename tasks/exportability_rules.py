"""The limits of an untrained student's files: the section `exportability` of params.yaml against what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.stage_params import Exportability

# Limit -> what it is compared with, and the kinds of findings that explain it. What breaks first is told first.
LIMITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "max_dynamic_shapes": ("dynamic_shapes", ("dynamic shape",)),
    "max_float_islands": ("float_islands", ("float island",)),
    "max_fallbacks": ("fallbacks", ("fallback",)),
    "max_partitions": ("partitions", ("fallback", "float island")),
    "max_onnx_float_operations": ("onnx_float_operations", ("onnx float",)),
    "max_transposes": ("transposes", ("transpose",)),
    "max_concatenations": ("concatenations", ("concatenation",)),
    "max_full_resolution": ("full_resolution", ("full resolution",)),
    "max_latency_over_budget": ("latency_over_budget", ()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One limit."""

    rule: str
    value: float
    limit: float
    kept: bool
    warns: bool  # a limit that is only told
    explained_by: tuple[str, ...]  # kinds of findings

    @property
    def fails(self) -> bool:
        """Whether the student is refused for it."""
        return not self.kept and not self.warns


def judge(figures: Mapping[str, float], limits: Exportability) -> Sequence[Verdict]:
    """Every limit that there is a figure for, in the order of LIMITS."""
    return [
        Verdict(
            rule=rule,
            value=figures[figure],
            limit=getattr(limits, rule),
            kept=figures[figure] <= getattr(limits, rule),
            warns=rule in limits.only_warn,
            explained_by=kinds,
        )
        for rule, (figure, kinds) in LIMITS.items()
        if figure in figures
    ]
