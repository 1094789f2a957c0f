"""transformers, imported when it is first needed."""

from types import ModuleType

from atss_ext.vlsam.protocols import VlsamError

OLDEST = 5
INSTALL = 'run pip install "atss_ext[vlsam]"'


def require_transformers() -> ModuleType:
    """Import transformers.

    Raises:
        VlsamError: it is missing, broken or too old.
    """
    try:
        import transformers
    except ImportError as error:
        raise VlsamError(
            f'TransformersVLM needs transformers, which cannot be imported ({error}); {INSTALL}.'
        ) from error
    if int(transformers.__version__.split('.')[0]) < OLDEST:
        raise VlsamError(
            f'transformers {transformers.__version__} is too old for TransformersVLM, which needs '
            f'{OLDEST}.0 or newer; {INSTALL}.'
        )
    return transformers
