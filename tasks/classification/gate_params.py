"""The block `gate` of a classifier in params.yaml."""

from typing import Annotated

from pydantic import Field

from tasks.gate_params import TargetLimits
from tasks.schema import Fraction, Positive, PositiveFloat, Section

Difference = Annotated[float, Field(ge=-1, le=1)]  # of two shares


class LabelLimits(Section):
    """What a classifier's answers must reach; those about labels are not judged where no test example has one."""

    # Quality, on the test examples.
    min_accuracy: Fraction
    min_accuracy_low: Fraction  # the lower end of its 95 % interval over examples
    min_above_majority: Difference  # accuracy beyond that of always saying the class that training has most of
    min_agreement: Fraction  # share of all examples on which it says what its teacher says
    max_accuracy_drop: Difference  # the teacher's accuracy minus its own
    min_worst_class: Fraction  # accuracy on the class where it is least, of those with at least 5 test examples
    max_ece: Fraction  # expected calibration error, 15 bins
    # Mimicry: what becomes of the teacher's errors, of which at least 5 must be known, and of its right answers.
    max_copied_errors: Fraction  # of its errors those that are repeated, the same wrong class
    max_broken: Fraction  # of its right answers those on which the student is wrong
    # The upper end of the paired 95 % interval of accuracy, the float file of the same runtime minus int8.
    max_int8_accuracy_drop: Difference
    min_test_samples: Positive
    # Quality against the champion, both on the same examples; not judged where there is no champion.
    min_gain_over_champion: float  # the lower end of the paired 95 % interval of accuracy; of agreement without labels
    min_worst_class_gain: Difference  # the least gain over all classes
    max_ece_over_champion: PositiveFloat  # ratio, both raised to 0.01


class LabelGate(TargetLimits, LabelLimits):  # the later base's keys come first
    """What a classifier must reach, and what it must reach against the champion; see tasks/gate.py."""
