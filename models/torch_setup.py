"""Make torch repeatable, and make timm importable where torchvision's C extension does not load.

With the CPU build of torch 2.13 the package index's torchvision looks for CUDA libraries; its import
then fails on two operators that nothing here calls. Declaring their schemas lets the import pass; where
the extension does load, nothing is declared.
"""

import torch


def _declare_missing_operators() -> None:
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)


_libraries: list[torch.library.Library] = []  # a schema lives as long as its Library object


def make_torchvision_importable() -> None:
    """Declare torchvision's missing operators if its extension does not load; timm and torchmetrics import it."""
    import importlib.machinery
    import importlib.util

    package = importlib.util.find_spec("torchvision")
    if package is not None and package.origin is not None and not _libraries:
        folder = package.submodule_search_locations
        spec = importlib.machinery.PathFinder.find_spec("_C", folder)
        try:
            torch.ops.load_library(spec.origin)  # type: ignore[union-attr, arg-type]
        except (OSError, AttributeError, TypeError):
            _declare_missing_operators()


def import_timm() -> None:
    """Import timm, with torchvision made importable first."""
    make_torchvision_importable()
    import timm  # noqa: F401


def prepare_torch(threads: int) -> None:
    """Fix the number of threads and ask for deterministic kernels: equal inputs give equal bits."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Deterministic mode also fills every fresh tensor, a fifth of a training step; nothing here reads one.
    torch.utils.deterministic.fill_uninitialized_memory = False
