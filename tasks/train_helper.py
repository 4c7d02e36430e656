"""A further process of the stage train: the same training, with a part of each batch; it writes no files.

Started by tasks/train.py where `train.processes` is above 1.
Command: python -m tasks.train_helper --student NAME
"""

import argparse
import os

from models.errors import UserError
from tasks.params import load_params
from tasks.stage import die_with_parent, interrupt_on_terminate, one_line
from tasks.train import teach


def main() -> None:
    """Train until all have; exit code 1 and one line where that cannot be."""
    die_with_parent()
    interrupt_on_terminate()
    parser = argparse.ArgumentParser(prog="python -m tasks.train_helper")
    parser.add_argument("--student", required=True)
    name = parser.parse_args().student
    params = load_params()
    try:
        teach(params, name, params.student(name), int(os.environ["OMP_NUM_THREADS"]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (UserError, OSError) as error:
        raise SystemExit(one_line(error)) from None


if __name__ == "__main__":
    main()
