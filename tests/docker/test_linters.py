"""What hadolint and shellcheck say of the Dockerfile and of all shell scripts: nothing."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sysconfig.get_path('scripts'))
SCRIPTS = sorted([*REPO.glob('tools/*.sh'), *REPO.glob('docker/*.sh')])


def lint(program: str, *files: Path) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAMS / program, *files], capture_output=True, text=True, check=False)


def test_shellcheck_has_nothing_to_say(tmp_path):
    assert len(SCRIPTS) > 8
    done = lint('shellcheck', *SCRIPTS)
    assert (done.returncode, done.stdout) == (0, '')
    (tmp_path / 'bad.sh').write_text('#!/bin/sh\nrm -r $1\n')
    assert 'SC2086' in lint('shellcheck', tmp_path / 'bad.sh').stdout


@pytest.mark.parametrize('line', ['', 'RUN cd /tmp && apt-get install gcc\n'])
def test_hadolint_has_nothing_to_say(tmp_path, line):
    """The second case shows that it looks."""
    (tmp_path / 'Dockerfile').write_text((REPO / 'docker/Dockerfile').read_text() + line)
    done = lint('hadolint', tmp_path / 'Dockerfile')
    assert (done.returncode, done.stdout == '') == ((1, False) if line else (0, True)), done.stdout
