"""The import finder, in fresh interpreters: what it offers, whom it never shadows, what it costs."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from atss_ext.compat import mmcv_finder

ROOT = Path(mmcv_finder.__file__).parents[2]
COPY = '_atss_ext_mmcv_finder'
SITE_PACKAGES = [p for p in sys.path if Path(p).name in ('site-packages', 'dist-packages')]


def run(code, *paths, env=None):
    """Run ``code`` without site (so that no installed .pth file has a say) and return what it prints."""
    variables = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', mmcv_finder.OFF_SWITCH)}
    variables |= {'PYTHONPATH': os.pathsep.join(map(str, paths))} | (env or {})
    command = [sys.executable, '-S', '-c', textwrap.dedent(code)]
    # Python puts the current folder first on the path: away from the repository.
    done = subprocess.run(
        command, cwd=paths[0], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path):
    """A folder with the finder's copy, as it lies in site-packages."""
    folder = tmp_path / 'site'
    folder.mkdir()
    shutil.copy(mmcv_finder.__file__, folder / f'{COPY}.py')
    (folder / 'atss_ext_mmcv_finder.pth').write_text(f'import {COPY}; {COPY}.install()\n')
    return folder


@pytest.fixture
def lite(tmp_path):
    """A folder with a package mmcv that has no _ext."""
    (tmp_path / 'lite' / 'mmcv').mkdir(parents=True)
    (tmp_path / 'lite' / 'mmcv' / '__init__.py').touch()
    return tmp_path / 'lite'


def test_stock_mmdet_runs_where_only_the_pth_line_ran(copied):
    code = f"""
        import site, sys
        site.addsitedir({str(copied)!r})
        sys.path += {SITE_PACKAGES!r}
        assert not any(name.startswith('atss_ext') for name in sys.modules)
        import mmcv.ops, mmdet.models
        from mmcv.ops import nms
        from mmcv.utils.ext_loader import check_ops_exist
        from mmdet.utils import register_all_modules
        import torch
        register_all_modules()
        boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 4.5], [8, 8, 9, 9]])
        print(nms(boxes, torch.tensor([.5, .9, .1]), .5)[1].tolist(), check_ops_exist())
    """
    assert run(code, copied, ROOT).splitlines()[-1] == '[1, 2] True'


def test_without_it_stock_mmdet_does_not_import(copied):
    code = f"""
        import site, sys
        site.addsitedir({str(copied)!r})
        sys.path += {SITE_PACKAGES!r}
        try:
            import mmcv.ops
        except ModuleNotFoundError as error:
            print(error.name)
    """
    assert run(code, copied, ROOT, env={mmcv_finder.OFF_SWITCH: '1'}) == 'mmcv._ext'


def test_a_spec_is_offered_without_importing_what_backs_it(copied, lite):
    code = f"""
        import {COPY}, sys, importlib.util
        {COPY}.install()
        spec = importlib.util.find_spec('mmcv._ext')
        print(spec.name, spec.origin, sorted({{'torch', 'atss_ext', 'mmcv._ext'}} & set(sys.modules)))
    """
    assert run(code, copied, lite, ROOT) == 'mmcv._ext atss_ext.compat.mmcv_ops []'


def test_an_ext_file_wins(copied, lite):
    (lite / 'mmcv' / '_ext.py').write_text("origin = 'compiled'\n")
    code = f"""
        import {COPY}, sys
        {COPY}.install()
        # Even asked first, it hands out the other one.
        sys.meta_path.insert(0, sys.meta_path.pop())
        import mmcv._ext
        print(mmcv._ext.origin, type(sys.meta_path[0]).__name__)
    """
    assert run(code, copied, lite, ROOT) == 'compiled MmcvExtFinder'


def test_a_finder_installed_later_wins(copied, lite):
    code = f"""
        import {COPY}, sys
        from importlib.machinery import ModuleSpec
        {COPY}.install()
        class Editable:
            @staticmethod
            def find_spec(fullname, path=None, target=None):
                return ModuleSpec(fullname, Editable) if fullname == 'mmcv._ext' else None
            create_module = staticmethod(lambda spec: None)
            exec_module = staticmethod(lambda module: setattr(module, 'origin', 'editable'))
        sys.meta_path.append(Editable)
        import mmcv._ext
        print(mmcv._ext.origin)
    """
    assert run(code, copied, lite, ROOT) == 'editable'


def test_a_finder_that_asks_all_others_too_does_not_loop(copied, lite):
    code = f"""
        import {COPY}, sys, importlib.util
        {COPY}.install()
        class Polite:
            @staticmethod
            def find_spec(fullname, path=None, target=None):
                specs = (f.find_spec(fullname, path) for f in sys.meta_path if f is not Polite)
                return next((spec for spec in specs if spec), None)
        sys.meta_path.append(Polite)
        print(importlib.util.find_spec('mmcv._ext').origin)
    """
    assert run(code, copied, lite, ROOT) == 'atss_ext.compat.mmcv_ops'


@pytest.mark.parametrize('value', ['1', 'yes'])
def test_the_off_switch_silences_both_ways(copied, lite, value):
    code = f"""
        import os, sys, importlib.util, {COPY}
        from atss_ext.compat import mmcv_finder
        for module in ({COPY}, mmcv_finder):
            module.install()
        count = sum(hasattr(f, 'find_spec') and 'Mmcv' in type(f).__name__ for f in sys.meta_path)
        before = importlib.util.find_spec('mmcv._ext')
        # Set after the interpreter started, it still counts.
        value = os.environ.pop({mmcv_finder.OFF_SWITCH!r})
        {COPY}.install()
        there = importlib.util.find_spec('mmcv._ext') is not None
        os.environ[{mmcv_finder.OFF_SWITCH!r}] = value
        print(count, before, there, importlib.util.find_spec('mmcv._ext'))
    """
    stub = _stub_package(lite)
    assert run(code, copied, lite, stub, env={mmcv_finder.OFF_SWITCH: value}) == '0 None True None'


def test_zero_does_not_switch_off(copied, lite):
    code = (
        f'import {COPY}, importlib.util; {COPY}.install(); print(importlib.util.find_spec("mmcv._ext").name)'
    )
    assert run(code, copied, lite, ROOT, env={mmcv_finder.OFF_SWITCH: '0'}) == 'mmcv._ext'


def test_both_copies_together_install_one_finder(copied, lite):
    code = f"""
        import sys, {COPY}
        from atss_ext.compat import mmcv_finder
        for module in ({COPY}, mmcv_finder, {COPY}, mmcv_finder):
            module.install()
        print([type(f).__name__ for f in sys.meta_path].count('MmcvExtFinder'), sys.meta_path[-1].__module__)
    """
    assert run(code, copied, lite, _stub_package(lite)) == f'1 {COPY}'


def test_a_half_uninstalled_package_is_passed_over_in_silence(copied, lite, tmp_path):
    code = f'import {COPY}, importlib.util; {COPY}.install(); print(importlib.util.find_spec("mmcv._ext"))'
    assert run(code, copied, lite) == 'None'
    left = tmp_path / 'left'
    (left / 'atss_ext').mkdir(parents=True)
    assert run(code, copied, lite, left) == 'None'
    (left / 'atss_ext' / '__init__.py').touch()
    (left / 'atss_ext' / 'compat').mkdir()
    assert run(code, copied, lite, left) == 'None'
    blocked = f'import sys; sys.modules["atss_ext"] = None; {code}'
    assert run(blocked, copied, lite, ROOT) == 'None'


def test_a_stand_in_that_does_not_import_is_a_missing_module(copied, lite):
    stub = _stub_package(lite)
    (stub / 'atss_ext' / 'compat' / 'mmcv_ops.py').write_text("raise OSError('no libtorch here')\n")
    code = f"""
        import {COPY}
        {COPY}.install()
        try:
            import mmcv._ext
        except ModuleNotFoundError as error:
            print(error.name, '|', error)
    """
    name, _, message = run(code, copied, lite, stub).partition(' | ')
    assert name == 'mmcv._ext'
    assert 'OSError: no libtorch here' in message
    assert mmcv_finder.OFF_SWITCH in message
    assert '\n' not in message


def test_starting_it_imports_next_to_nothing(copied):
    code = f"""
        import os, sys  # every interpreter with site has os
        before = set(sys.modules)
        import {COPY}
        {COPY}.install()
        print(sorted(set(sys.modules) - before))
    """
    assert run(code, copied) == str([COPY])


def _stub_package(folder):
    """A package atss_ext of the real finder and nothing heavy, on a path of its own."""
    compat = folder / 'stub' / 'atss_ext' / 'compat'
    compat.mkdir(parents=True)
    for package in (compat.parent, compat):
        (package / '__init__.py').touch()
    (compat / 'mmcv_ops.py').write_text('def populate(module): pass\n')
    shutil.copy(mmcv_finder.__file__, compat / 'mmcv_finder.py')
    return folder / 'stub'
