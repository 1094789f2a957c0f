"""The trained small models that come with the package, by the names that every loader of models takes."""

from pathlib import Path

from atss_ext.vlsam.hub import SHIPPED, local_name

VLM, SAM = SHIPPED
"""A LLaVA that lists the objects of a scene of the world, and a SAM that turns prompts into masks on it."""

WEIGHTS = Path(__file__).resolve().parent / 'weights'
"""The folder of both and of their model card, ``README.md``."""


def shipped_folder(name: str) -> Path:
    """Where a model of the package lies.

    Args:
        name: :data:`VLM`, :data:`SAM`, or another ``atss_ext::path`` to a folder of the package.

    Raises:
        ValueError: the name has another form.
        VlsamError: there is no such folder.
    """
    if '::' not in name:
        raise ValueError(f'name must be like {VLM}, but is {name!r}.')
    return Path(local_name(name))
