"""The order of the test files."""

import runpy
from pathlib import Path

TESTS = Path(__file__).parent


def test_long_files_come_first(request):
    longest = [TESTS / name for name in runpy.run_path(str(TESTS / 'conftest.py'))['LONGEST']]
    assert [path for path in longest if not path.is_file()] == []
    paths = list(dict.fromkeys(item.path for item in request.session.items))
    long = [path for path in paths if path in longest]
    assert paths[: len(long)] == sorted(long, key=longest.index)
