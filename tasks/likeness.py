"""How like the teacher's a contestant's pictures are, beyond pixels: a perceptual distance, and KID over the set.

Both by a network without training (models/perceptual.py, models/distribution.py), as no weights are at hand that may be
shipped: they compare students with one another. Called by tasks/evaluate.py.
"""

from collections.abc import Mapping, Sequence

from tasks.progress import progress
from tasks.quality import BATCH, Model, Pictures, checked, rounded

LEAST = 8  # pictures, for KID


def likeness(
    models: Mapping[str, Model], names: Sequence[str], inputs: Pictures, targets: Pictures
) -> dict[str, dict[str, float]]:
    """perceptual, kid and kid_sd (both times 1000) of these contestants on (N,S,S,3) uint8 pairs.

    Without KID for fewer than LEAST pictures.
    """
    import torch

    from models.distribution import kid, pooled
    from models.metrics import batches, to_tensor
    from models.perceptual import distances

    apart: dict[str, list[float]] = {name: [] for name in names}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    wanted = []
    with torch.inference_mode(), progress("likeness", len(inputs), "pictures") as advance:
        for x, y in batches([inputs, targets], BATCH):
            teacher = to_tensor(y)
            wanted.append(pooled([teacher]))
            for name in names:
                output = to_tensor(checked(name, models[name](x), x.shape))
                apart[name] += distances(output, teacher).tolist()
                seen[name].append(pooled([output]))
            advance(len(x))
    found = {}
    for name in names:
        found[name] = {"perceptual": sum(apart[name]) / len(apart[name])}
        if len(inputs) >= LEAST:
            mean, deviation = kid(torch.cat(seen[name]), torch.cat(wanted))
            found[name] |= {"kid": 1000 * mean, "kid_sd": 1000 * deviation}
    return {name: rounded(figures) for name, figures in found.items()}
