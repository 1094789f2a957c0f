"""A script in a warm process sees what it sees in an interpreter of its own."""

import json
import os
import subprocess
import sys

import pytest
from warm import TESTS, run_warm

SCRIPT = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), dict(os.environ), sys.path[0], __name__]))
print('a warning', file=sys.stderr)
here = [path for path in sys.path if path.startswith(sys.argv[1])]
assert not here, here
assert not {'atss_ext.ops', 'atss_ext.cli', 'atss_ext.registry'} & set(sys.modules)
END
"""


@pytest.mark.parametrize(
    ('end', 'code', 'last'),
    [
        ('', 0, 'a warning'),
        ('sys.exit(3)', 3, 'a warning'),
        ('sys.exit("a sentence")', 1, 'a sentence'),
        ('1 / 0', 1, 'ZeroDivisionError: division by zero'),
        ('os.kill(os.getpid(), 9)', -9, None),
    ],
)
def test_as_in_an_interpreter(tmp_path, end, code, last):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'script.py').write_text(SCRIPT.replace('END', end))
    words = ['../script.py', str(TESTS), '--option']
    environment = {'PATH': os.environ['PATH'], 'OMP_NUM_THREADS': '1', 'MINE': 'é'}
    cold = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path / 'folder',
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    warm = run_warm(words, tmp_path / 'folder', environment)
    assert warm.returncode == cold.returncode == code
    if last is None:
        return
    assert warm.stderr.splitlines()[-1] == cold.stderr.splitlines()[-1] == last
    seen, expected = json.loads(warm.stdout), json.loads(cold.stdout)
    assert {name: seen[2].get(name) for name in environment} == environment
    assert [seen[0], seen[1], *seen[3:]] == [expected[0], expected[1], *expected[3:]]


def test_what_takes_too_long_is_killed(tmp_path):
    (tmp_path / 'script.py').write_text('import time; time.sleep(60)')
    with pytest.raises(subprocess.TimeoutExpired):
        run_warm(['script.py'], tmp_path, dict(os.environ), timeout=0.5)
