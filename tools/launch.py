"""torchrun for the dist_*.sh scripts; when a process fails, what it said stays the last word.

torchrun itself ends with a traceback of its own, 40 lines below the sentence of the process that
failed, and with exit code 1 whatever the process returned.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A negative one is a signal.
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
