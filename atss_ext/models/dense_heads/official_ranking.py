"""Which detections of a level go on to NMS, and with which score, in the official code."""

from torch import Tensor


def rank_officially(
    probabilities: Tensor, centerness: Tensor, score_thr: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of one level of one image (official ``atss_core/modeling/rpn/atss/inference.py``).

    The class probability alone has to exceed the threshold; what does is ranked by class probability times
    centerness, and the score is the square root of that product. mmdet ranks by the class alone and takes no
    root. Of equals the lower prior, then the lower class goes first.

    Args:
        probabilities: [n, C], of the classes.
        centerness: [n], probabilities.
        score_thr: that a class probability has to exceed (INFERENCE_TH, 0.05).
        limit: how many are kept at most (PRE_NMS_TOP_N, 1000); all where it is not positive.

    Returns:
        scores [k], labels [k] and the index of their priors [k], best first.
    """
    candidates = (probabilities > score_thr).nonzero()
    products = (probabilities * centerness[:, None])[candidates[:, 0], candidates[:, 1]]
    products, order = products.sort(descending=True, stable=True)
    kept = slice(limit if limit > 0 else None)
    chosen = candidates[order[kept]]
    return products[kept].sqrt(), chosen[:, 1], chosen[:, 0]
