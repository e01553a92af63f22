"""Vector matching on the step grid: who meets whom is decided by labels before, whether they meet is per step."""

from __future__ import annotations

from mimir_ray.kernel import I32, Bool, Bool2, OutI64, OutI64x2, kernel


@kernel
def first_clash(present: Bool2, groups: I32, active: Bool, holder: OutI64x2, found: OutI64) -> None:
    """Finds the first step at which two series of one group are present.

    Args:
        present: bool[S, T]; groups: int32[S] in 0..G-1; active: bool[T], steps that count.
        holder: int64[G, T], all -1, written: scratch.
        found: int64[3], written: step and the two rows, or -1 in found[0].
    """
    found[0] = -1
    for s in range(present.shape[0]):
        g = groups[s]
        for t in range(present.shape[1]):
            if present[s, t] and active[t]:
                if holder[g, t] >= 0:
                    if found[0] < 0 or t < found[0]:
                        found[0] = t
                        found[1] = holder[g, t]
                        found[2] = s
                else:
                    holder[g, t] = s
