"""How a command ends: a user's error in one sentence, a bug with its traceback and the log's place."""

import errno
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pickle import UnpicklingError
from types import FrameType
from urllib.error import URLError

from atss_ext.assigners.base import AssignmentError
from atss_ext.compat.checkpoints import explain_refusal
from atss_ext.datasets.checks import DataError, nearest
from atss_ext.errors import UserError
from atss_ext.vlsam.protocols import VlsamError

USER_ERROR = 2
BUG = 1
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


# Errors whose message is the sentence.
SENTENCES = (UserError, DataError, AssignmentError, VlsamError)


def rank() -> int:
    """Return the rank of this process as its launcher states it; 0 without a launcher."""
    return next((int(os.environ[name]) for name in _RANK_VARIABLES if name in os.environ), 0)


def note(sentence: str) -> None:
    """Say something on stderr, once for all ranks."""
    if rank() == 0:
        print(f'note: {sentence}', file=sys.stderr, flush=True)


def run_tool(tool: Callable[[], None], resume: str = 'training goes on with --resume') -> int:
    """Run a command and return its exit code: 0, 1 for a bug, 2 for a user's error.

    A user's error is one sentence on stderr. So is the death of another process of the run, with code 1:
    tools/launch.py starts the run again after such a death, but not after a user's error. Anything
    unknown keeps its whole traceback, which is also appended to the log of the run, whose place is
    named. ``resume`` tells whoever interrupts it how it goes on.
    """
    try:
        tool()
        leave_process_group()
    except KeyboardInterrupt:
        print(f'interrupted; {resume}', file=sys.stderr)
        return 130
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            _report_bug(error)
            return BUG
        if not isinstance(error, SENTENCES):  # recognised by its looks: keep the evidence
            _append_to_log(''.join(traceback.format_exception(error)))
        _say(sentence)
        return BUG if _peer(error) else USER_ERROR
    return 0


def leave_process_group() -> None:
    """End the communication with other processes, if this command had joined them.

    Left open, a thread of the backend may drop the last tensor it sent while the interpreter already ends;
    it then aborts the process, and a finished run of several processes counts as failed.
    """
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _say(sentence: str) -> None:
    """Print the sentence; where several ranks fail alike, the launcher lets only rank 0 do so."""
    this = rank()
    if this:
        # An error of all ranks ends rank 0, and the launcher then ends this process while it
        # waits. One who survives the wait is the only one who knows: it has to speak.
        time.sleep(float(os.environ.get('ATSS_RANK_GRACE', '5')))
    prefix = f'error (rank {this}): ' if this else 'error: '
    print(prefix + ' '.join(sentence.split()), file=sys.stderr, flush=True)


def _report_bug(error: Exception) -> None:
    text = ''.join(traceback.format_exception(error))
    print(text, file=sys.stderr, end='')
    place = _append_to_log(text)
    if place:
        print(f'the log of this run, with this traceback: {place}', file=sys.stderr)


def _append_to_log(text: str) -> str | None:
    """Append to the run's log file, if a run has one already, and return its path."""
    from mmengine.logging import MMLogger

    if not MMLogger._instance_dict:  # a logger of its own would otherwise be made here
        return None
    logger = MMLogger.get_current_instance()
    place = None
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logger.makeRecord(logger.name, logging.ERROR, '', 0, text, (), None))
            place = handler.baseFilename
    return place


def explain(error: BaseException) -> str | None:
    """Return the sentence for an exception, or None for one that is no user's error."""
    if isinstance(error, SENTENCES):
        # torch hands a worker's exception over with the worker's traceback before its message.
        return str(error).strip().splitlines()[-1].removeprefix('atss_ext.datasets.checks.DataError: ')
    for recognise in (_image, _checkpoint, _download, _missing_file, _registry, _classes, _peer):
        sentence = recognise(error)
        if sentence:
            return sentence
    return None


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames of the traceback, innermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return reversed(frames)


def _raised_in(error: BaseException, *ends: str) -> FrameType | None:
    """Return the innermost frame whose file ends with one of ``ends``."""
    for frame in _frames(error):
        if frame.f_code.co_filename.replace('\\', '/').endswith(ends):
            return frame
    return None


def _image(error: BaseException) -> str | None:
    # Workers that were not forked from this process lack the naming of atss_ext.cli.images.
    found = re.search(r'failed to load image: (.+)', str(error))
    return unreadable_image(found.group(1).strip(), 'it is no image, or it is damaged') if found else None


def unreadable_image(path: object, reason: str) -> str:
    """Return the sentence for an image that cannot be loaded."""
    return f'image {path} cannot be read ({reason}); replace it, or remove it from the annotation file'


def _checkpoint(error: BaseException) -> str | None:
    frame = _raised_in(error, 'mmengine/runner/checkpoint.py')
    if frame is None or isinstance(error, URLError):
        return None
    name = str(frame.f_locals.get('filename'))
    if isinstance(error, FileNotFoundError):
        return f'checkpoint {name} does not exist; correct the path'
    if _raised_in(error, 'atss_ext/compat/checkpoints.py') and isinstance(error, UnpicklingError):
        return str(error)
    if _raised_in(error, 'torch/serialization.py'):
        return explain_refusal(error, name)
    return None


def _download(error: BaseException) -> str | None:
    if not isinstance(error, URLError):
        return None
    url = next(
        (f.f_locals['url'] for f in _frames(error) if isinstance(f.f_locals.get('url'), str)), 'a file'
    )
    return (
        f'{url} cannot be downloaded ({error.reason}); put the file into ~/.cache/torch/hub/checkpoints, or '
        'start from random weights with --cfg-options model.backbone.init_cfg=None'
    )


def _missing_file(error: BaseException) -> str | None:
    if not isinstance(error, FileNotFoundError) or error.errno not in (None, errno.ENOENT):
        return None
    if not isinstance(error.filename, str):
        return None
    if _raised_in(error, '/subprocess.py'):
        return f'the program {error.filename} is not found; install it, or add its folder to PATH'
    return f'{error.filename} does not exist; correct the path in the config'


def _registry(error: BaseException) -> str | None:
    frame = _raised_in(error, 'mmengine/registry/build_functions.py')
    if frame is None:
        return None
    for recognise in (_unknown_type, _unexpected_key, _missing_key, _refused_value):
        sentence = recognise(error, frame)
        if sentence:
            return sentence
    return None


def _unknown_type(error: BaseException, frame: FrameType) -> str | None:
    unknown = re.match(r"'?(\S+) is not in the (\S+) registry", str(error))
    if not isinstance(error, KeyError) or unknown is None:
        return None
    registry = frame.f_locals.get('registry')
    nodes = [registry, getattr(registry, 'parent', None)]
    names = {name for node in nodes for name in getattr(node, 'module_dict', ())}
    return (
        f"type '{unknown.group(1)}' is in no registry of its kind ({unknown.group(2)})"
        f'{nearest(unknown.group(1), names)}; correct it, or import its module with custom_imports'
    )


def _unexpected_key(error: BaseException, frame: FrameType) -> str | None:
    unexpected = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
    if not isinstance(error, TypeError) or not unexpected:
        return None
    if unexpected[1] not in frame.f_locals.get('args', ()):  # it does not come from the config: a bug
        return None
    return (
        f"{_built_class(frame)} takes no key '{unexpected[1]}'; correct it in the config "
        '(tools/analysis/check_config.py names every key that nothing reads)'
    )


def _missing_key(error: BaseException, frame: FrameType) -> str | None:
    kind = _built_class(frame)
    missing = re.match(rf'{kind}\.__init__\(\) missing \d+ required [\w-]+ arguments?: (.+)', str(error))
    if not isinstance(error, TypeError) or missing is None:
        return None
    return f'{kind} needs a value for {missing[1]}; add it to the config'


def _refused_value(error: BaseException, frame: FrameType) -> str | None:
    """Recognise a value that one of our own classes refuses on being built; its message is a sentence."""
    ours = next(_frames(error)).f_code.co_filename.startswith(_PACKAGE)
    return str(error) if isinstance(error, ValueError) and ours else None


def _built_class(frame: FrameType) -> str:
    kind = frame.f_locals.get('obj_cls')
    return getattr(kind, '__name__', str(kind))


def _classes(error: BaseException) -> str | None:
    if isinstance(error, AssertionError) and _raised_in(error, 'mmdet/engine/hooks/num_class_check_hook.py'):
        return f'{error}; make num_classes of the head and the classes of the dataset agree'
    return None


def _peer(error: BaseException) -> str | None:
    lost = re.search(r'Connection (closed|reset) by peer|remote process exited', str(error))
    if isinstance(error, RuntimeError) and lost:
        return 'another process of this run has ended, and this one cannot go on; its own message says why'
    return None
