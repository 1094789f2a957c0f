"""Optimal transport between gts and priors by Sinkhorn's iteration, for a batch whose plans are sparse."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """B transport problems at once; costs in units of the regularisation (cost / eps), float64.

    Each image has one supplier a gt and one more, the background, and one demander a prior, who wants one
    unit. What a demander pays is only of interest as a difference between suppliers: the background's price
    is 0. Only K priors a gt can be supplied by it; the P priors that some gt can supply are columns, all
    others can only take from the background and are counted.

    Attributes:
        costs: [T, K], inf where a candidate is none.
        columns: [T, K] int64, the column of every candidate; P where it is none.
        supply: [T], units of every gt.
        column_images: [P] int64.
        background_supply: [B].
        others: [B], priors that no gt can supply.
    """

    costs: Tensor
    columns: Tensor
    supply: Tensor
    column_images: Tensor
    background_supply: Tensor
    others: Tensor


@dataclass(frozen=True)
class Plan:
    """Logarithms of what is transported.

    Attributes:
        gts: [T, K], from gts to their candidates; -inf where a candidate is none.
        background: [P], from the background to columns.
        others: [B], from the background to each of the priors that no gt can supply.
    """

    gts: Tensor
    background: Tensor
    others: Tensor


def solve(problem: Problem, iterations: int) -> Plan:
    """Sinkhorn-Knopp in the logarithm (Cuturi, arXiv 1306.0895; for OTA, arXiv 2103.14259).

    Each iteration first makes every demander get what it wants, then every supplier give what it has, as the
    official code does; so the sums over suppliers are exact and those over demanders converge.

    A prior that only the background can supply always has the potential that makes up for the background's,
    so one number stands for all of them.

    Args:
        problem: of the batch.
        iterations: how many.
    """
    supplied = problem.costs.isfinite().any(1)
    gt_potential = torch.zeros_like(problem.supply)
    background = torch.zeros_like(problem.background_supply)
    column = background[problem.column_images]
    other = -background
    for _ in range(iterations):
        column = -_log_sum_over_columns(problem, gt_potential, background)
        other = -background
        given = _padded(column)[problem.columns] - problem.costs
        gt_potential = (problem.supply.log() - given.logsumexp(1)).where(supplied, 0.0)
        background = problem.background_supply.log() - _log_sum_over_images(problem, column, other)
    return Plan(
        gt_potential[:, None] + _padded(column)[problem.columns] - problem.costs,
        background[problem.column_images] + column,
        background + other,
    )


def _padded(column: Tensor) -> Tensor:
    """[P] -> [P + 1]: candidates that are none have a column too."""
    return torch.cat([column, column.new_zeros(1)])


def _log_sum_over_columns(problem: Problem, gt_potential: Tensor, background: Tensor) -> Tensor:
    """[P]: log of what every column would get of all suppliers at these potentials."""
    offered = (gt_potential[:, None] - problem.costs).view(-1)
    own = background[problem.column_images]
    index = problem.columns.view(-1)
    most = _padded(own).scatter_reduce_(0, index, offered, 'amax')
    shares = (offered - most[index]).exp()
    total = _padded((own - most[:-1]).exp()).index_add_(0, index, shares)[:-1]
    return total.log() + most[:-1]


def _log_sum_over_images(problem: Problem, column: Tensor, other: Tensor) -> Tensor:
    """[B]: log of what every image's background would give at these potentials."""
    others = other + problem.others.log()
    most = others.scatter_reduce(0, problem.column_images, column, 'amax')
    # An image without priors has -inf of all: no maximum to take off.
    most = most.where(most.isfinite(), 0.0)
    shares = (column - most[problem.column_images]).exp()
    return (others - most).exp().index_add_(0, problem.column_images, shares).log() + most
