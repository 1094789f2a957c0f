"""How the growth that growth.py measured is shown: table, sentence, plot. Needs no torch."""

from pathlib import Path

HEADINGS = ('priors N', 'gts T', 'atss_assign ms', 'zero-filled results ms', 'center_topk ms')
LABELS = {'assign_ms': 'atss_assign', 'results_ms': 'zero-filled results', 'topk_ms': 'center_topk'}


def cells(point: dict) -> list[str]:
    """A point as the cells of a table."""
    times = [f'{point[key]:.3f}' for key in LABELS]
    return [f'{point["priors"]:,}', f'{point["gts"]:,}', *times]


def sentence(points: list[dict]) -> str:
    """What a curve shows from its first to its last point."""
    first, last = points[0], points[-1]
    key = 'priors' if first['priors'] != last['priors'] else 'gts'
    factors = [f'{label} {last[name] / first[name]:,.2f}' for name, label in LABELS.items()]
    return (
        f'From {first[key]:,} to {last[key]:,} {key}, a factor of {last[key] / first[key]:,.0f}, '
        f'times change by factors: {", ".join(factors)}.'
    )


def show(growth: dict[str, list[dict]]) -> None:
    """Print both tables."""
    for points in growth.values():
        print()
        for row in (HEADINGS, *map(cells, points)):
            print(''.join(cell.rjust(24) for cell in row))
        print(sentence(points))


def plot(growth: dict[str, list[dict]], path: Path) -> None:
    """Draw both curves into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, points, key in ((left, growth['by_priors'], 'priors'), (right, growth['by_gts'], 'gts')):
        x = [point[key] for point in points]
        for name, label in LABELS.items():
            axes.plot(x, [point[name] for point in points], marker='o', label=label)
        axes.set(xscale='log', yscale='log', ylabel='ms')
        axes.grid(which='both', alpha=0.2)
    left.set(xlabel='priors N', title=f'{left_gts(growth)} gts')
    right.set(xlabel='gts T', title=f'{growth["by_gts"][0]["priors"]:,} priors')
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def left_gts(growth: dict[str, list[dict]]) -> int:
    """Gts of the curve over priors."""
    return growth['by_priors'][0]['gts']
