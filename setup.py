"""Builds the native library and the two things pyproject.toml cannot express.

1. ``atss_ext/.mim`` holds configs and tools, so that mmengine resolves ``atss_ext::...`` and mim finds us.
2. A ``.pth`` file starts two small import hooks in every interpreter of the environment, because mmdet's
   own commands need them before a config could import us: :mod:`atss_ext.compat.mmcv_finder` offers
   ``mmcv._ext`` where nothing else does, :mod:`atss_ext.compat.config_scope` makes ``atss_ext::`` known.

Environment: ``ATSS_EXT_NO_NATIVE=1`` builds without the library. ``FORCE_CUDA=1`` builds for CUDA even where
no GPU is, ``FORCE_CUDA=0`` not even where one is; ``TORCH_CUDA_ARCH_LIST`` names the architectures.
``ATSS_EXT_SANITIZE=1`` builds with AddressSanitizer and UndefinedBehaviorSanitizer. ``MAX_JOBS`` bounds
parallel compilation.
"""

import base64
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import setuptools
from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
# Start-up hooks: the module of atss_ext.compat each is a copy of, by its name in site-packages.
HOOKS = {'_atss_ext_mmcv_finder': 'mmcv_finder', '_atss_ext_config_scope': 'config_scope'}
PTH_NAME = 'atss_ext_hooks.pth'
# The guard keeps an interpreter start quiet when only half of the files were removed. `sitedir` is the folder
# of the .pth file, a name of the function in `site` that runs the line; to ask importlib.util instead would
# cost every interpreter milliseconds.
PTH_LINE = "import os; os.path.isfile(os.path.join(sitedir, '{0}.py')) and __import__('{0}').install()\n"
# Beside the library in a source tree: the torch it was built for, which tools/setup_env.py compares.
TORCH_STAMP = 'atss_ext/_C.torch'
# Built for where no GPU says what it is; every toolkit from 11.8 on knows these. Kernels need 7.0 at least.
DEFAULT_ARCHITECTURES = '7.5;8.0;8.6;9.0+PTX'
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')


def check_setuptools() -> None:
    """Names a setuptools too old to build wheels by itself; virtual environments often start with one."""
    if tuple(int(part) for part in setuptools.__version__.split('.')[:2]) < (70, 1):
        sys.exit(
            f'atss_ext: setuptools {setuptools.__version__} cannot build this package; run '
            'pip install "setuptools>=70.1,<81" first.'
        )


def find_cuda_home() -> Path | None:
    """The CUDA toolkit: ``CUDA_HOME``, where ``nvcc`` leads, or the usual place; None where there is none.

    torch guesses from the folder of the ``nvcc`` it finds, which may be a link or a script outside of the
    toolkit.
    """
    nvcc = shutil.which('nvcc')
    candidates = [
        os.environ.get('CUDA_HOME'),
        Path(nvcc).resolve().parent.parent if nvcc else None,
        '/usr/local/cuda',
    ]
    for home in filter(None, candidates):
        if Path(home, 'bin/nvcc').exists() and Path(home, 'include/cuda_runtime.h').exists():
            return Path(home).resolve()
    return None


def cuda_release(home: Path) -> str:
    """The release of a toolkit, such as '13.0'."""
    lines = subprocess.run(
        [home / 'bin/nvcc', '--version'], capture_output=True, text=True, check=True
    ).stdout
    return lines.rpartition('release ')[2].partition(',')[0]


def wants_cuda() -> bool:
    """Whether to compile for CUDA: where torch sees a GPU and a toolkit fits, or with ``FORCE_CUDA=1``.

    Forced, a CPU-only machine (a docker build, CI) builds for the GPUs of another.
    """
    import torch

    wish = os.environ.get('FORCE_CUDA', '')
    if wish == '0' or (not wish and not (torch.cuda.is_available() and torch.version.cuda)):
        return False
    home = find_cuda_home()
    reason = ''
    if not torch.version.cuda:
        reason = f'torch {torch.__version__} is built without CUDA'
    elif home is None:
        reason = 'there is no CUDA toolkit with nvcc; install one or set CUDA_HOME'
    elif cuda_release(home).split('.')[0] != torch.version.cuda.split('.')[0]:
        reason = f'torch is built with CUDA {torch.version.cuda}, but {home} is release {cuda_release(home)}'
    if reason and wish:
        sys.exit(f'atss_ext: FORCE_CUDA is set, but {reason}.')
    if reason:
        print(f'atss_ext: building for the CPU alone, PyTorch serves the GPU: {reason}', file=sys.stderr)
        return False
    os.environ['CUDA_HOME'] = str(home)
    if not torch.cuda.is_available():  # torch has nothing to go by
        os.environ.setdefault('TORCH_CUDA_ARCH_LIST', DEFAULT_ARCHITECTURES)
    return True


def sources_below(*suffixes: str) -> list[str]:
    """Files of the native library with these suffixes, relative to the tree."""
    files = (ROOT / 'atss_ext/csrc').rglob('*')
    return sorted(str(path.relative_to(ROOT)) for path in files if path.suffix in suffixes)


def is_gcc(compiler: str) -> bool:
    """Whether a compiler command is GCC, by what it says of itself."""
    try:
        command = [*shlex.split(compiler), '--version']
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return 'Free Software Foundation' in said.stdout


def compile_flags() -> dict[str, list[str]]:
    """Compiler flags by language; no fused multiply-add: results are the same bits on every device."""
    if sys.platform == 'win32':
        cxx = ['/O2']
    else:
        cxx = ['-O3', '-ffp-contract=off', '-fno-math-errno', '-fno-trapping-math']
        if is_gcc(os.environ.get('CXX', 'c++')):
            # at::parallel_for lies in a header and runs on one thread without. Not linked: the symbols are
            # those of torch's own OpenMP, so that there is one pool of threads. Other compilers want symbols
            # of a library of their own.
            cxx.append('-fopenmp')
    if os.environ.get('ATSS_EXT_SANITIZE', '0') not in ('', '0'):
        cxx += [
            '-g',
            '-O1',
            '-fno-omit-frame-pointer',
            '-fsanitize=address,undefined',
            '-DATSS_EXT_NO_CLONES',
        ]
        cxx += ['-fno-sanitize-recover=undefined']
    return {'cxx': cxx, 'nvcc': ['-O3', '--fmad=false']}


def native_extension() -> dict:
    """setup() arguments for ``atss_ext._C``; none when the user wants no native library."""
    if os.environ.get('ATSS_EXT_NO_NATIVE', '0') not in ('', '0'):
        return {}
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit(
            'atss_ext: torch is not importable in this build; install torch and torchvision first, then run '
            'pip with --no-build-isolation, or set ATSS_EXT_NO_NATIVE=1 to do without the native library.'
        )
    cuda = wants_cuda()  # before torch settles on a toolkit
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    class Build(BuildExtension):
        """BuildExtension that names a missing compiler in one sentence and notes the torch it builds for."""

        def build_extensions(self) -> None:
            compiler = os.environ.get('CXX', 'cl' if sys.platform == 'win32' else 'c++')
            if not shutil.which(compiler.split()[0]) and not shutil.which('g++'):
                sys.exit(
                    f'atss_ext: no C++ compiler found (looked for {compiler!r} and g++); install one '
                    '(Debian/Ubuntu: apt-get install g++), or set ATSS_EXT_NO_NATIVE=1 to do without the '
                    'native library.'
                )
            # Sources alone would make a library left by a build for another torch count as up to date.
            self.force = True
            super().build_extensions()

        def copy_extensions_to_source(self) -> None:
            stamp = ROOT / TORCH_STAMP
            stamp.unlink(missing_ok=True)
            super().copy_extensions_to_source()
            stamp.write_text(metadata.version('torch'))

    flags = compile_flags()
    sanitize = [flag for flag in flags['cxx'] if flag.startswith('-fsanitize')]
    extension = (CUDAExtension if cuda else CppExtension)(
        'atss_ext._C',
        sources_below('.cpp', '.cu') if cuda else sources_below('.cpp'),
        depends=sources_below('.h', '.cuh'),
        define_macros=[('Py_LIMITED_API', '0x030A0000')],
        extra_compile_args=flags if cuda else {'cxx': flags['cxx']},
        extra_link_args=sanitize,
        py_limited_api=True,
    )
    return {
        'ext_modules': [extension],
        'cmdclass': {'build_ext': Build},
        'options': {'bdist_wheel': {'py_limited_api': 'cp310'}},
    }


class BuildPy(build_py):
    """Adds ``.mim`` and the start-up hooks to what a wheel holds; links ``.mim`` in an editable install."""

    def run(self) -> None:
        """Runs build_py, then adds the files."""
        super().run()
        if self.editable_mode:
            link_mim(ROOT / 'atss_ext/.mim')
            return
        target = Path(self.build_lib)
        mim = target / 'atss_ext/.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM_CONTENT:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, mim / name)
        for name, data in hook_files().items():
            (target / name).write_bytes(data)


def link_mim(mim: Path) -> None:
    """Makes ``atss_ext/.mim`` of a source tree point at the tree's own configs and tools."""
    mim.mkdir(exist_ok=True)
    for name in MIM_CONTENT:
        link = mim / name
        if not link.is_symlink():
            link.symlink_to(Path('../..') / name, target_is_directory=(ROOT / name).is_dir())


def hook_files() -> dict[str, bytes]:
    """The files of the start-up hooks, by their name in site-packages."""
    files = {
        f'{name}.py': (ROOT / f'atss_ext/compat/{source}.py').read_bytes() for name, source in HOOKS.items()
    }
    return {**files, PTH_NAME: ''.join(PTH_LINE.format(name) for name in HOOKS).encode()}


class EditableWheel(editable_wheel):
    """Adds the start-up hooks to an editable install and lets mmengine find ``.mim`` there.

    mmengine looks for a package's configs below ``<site-packages>/<first line of top_level.txt>`` and so
    misses every editable install (PEP 660 leaves only a link there). An absolute path in that line joins
    to itself, which is the one remedy that patches nothing.
    """

    def run(self) -> None:
        """Builds the editable wheel, then rewrites it."""
        super().run()
        for wheel in Path(self.dist_dir).glob('atss_ext-*.whl'):
            rewrite_wheel(wheel, f'{ROOT / "atss_ext"}\natss_ext\n'.encode(), hook_files())


def rewrite_wheel(wheel: Path, top_level: bytes, extra: dict[str, bytes]) -> None:
    """Replaces top_level.txt in ``wheel``, adds ``extra`` files and writes a matching RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    record = next(name for name in files if name.endswith('.dist-info/RECORD'))
    del files[record]
    files[record.replace('RECORD', 'top_level.txt')] = top_level
    files.update(extra)
    rows = [f'{name},{_digest(data)},{len(data)}\n' for name, data in files.items()]
    with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(record, ''.join([*rows, f'{record},,\n']))


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
    return f'sha256={digest}'


check_setuptools()
arguments = native_extension()
commands = {'build_py': BuildPy, 'editable_wheel': EditableWheel, **arguments.pop('cmdclass', {})}
setup(cmdclass=commands, **arguments)
