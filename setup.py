"""All package metadata. The folder kernels/ is installed as minigan.kernels: see README, "How it is laid out"."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildPy(build_py):
    """Takes minigan.kernels from kernels/.

    ``package_dir`` could say so, but then an editable install would be a hook that Python asks last, after a folder
    minigan/ beside the user's script. With one plain root it is an entry of sys.path, and minigan/__init__.py finds
    kernels/ beside it.
    """

    def get_package_dir(self, package: str) -> str:
        inside = f"{package}.".startswith("minigan.kernels.")
        return super().get_package_dir(package.removeprefix("minigan.") if inside else package)


TEST = [
    "pytest>=8",
    "hypothesis>=6.100",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "mypy>=1.11",
    "build>=1.2",
    "setuptools>=77",
    "nvidia-cuda-nvrtc",
]

setup(
    name="minigan",
    version="0.1.0",
    description="Generative adversarial networks from first principles: a small autodiff engine with its own kernels",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "minigan/data/digits.LICENSE.txt"],
    author="The minigan developers",
    python_requires=">=3.11",
    package_dir={"": "."},
    cmdclass={"build_py": BuildPy},
    packages=[
        "minigan",
        "minigan.cli",
        "minigan.data",
        "minigan.engine",
        "minigan.gan",
        "minigan.kernels",
        "minigan.kernels.cpu",
        "minigan.kernels.gpu",
        "minigan.kernels.gpu.emulator",
        "minigan.lab",
        "minigan.nn",
        "minigan.ops",
        "minigan.run",
        "minigan.studies",
        "minigan.testing",
    ],
    package_data={
        "minigan": ["py.typed"],
        "minigan.data": ["digits.npz", "digits.LICENSE.txt"],
        "minigan.kernels": ["*.cu"],
        "minigan.kernels.gpu": ["*.cuh"],
        "minigan.kernels.gpu.emulator": ["*.cpp", "*.hpp"],
    },
    install_requires=[
        "numpy>=2.0",
        "numba>=0.61,<0.69",  # kernels/cpu/numba_private.py: what a newer one may have moved
        "matplotlib>=3.8",
        "pillow>=10",
        "safetensors>=0.4.5",
        "tyro>=0.9",
        "rich>=13",
    ],
    extras_require={
        "test": TEST,
        "oracle": ["torch>=2.2", "jax>=0.8", "scikit-learn>=1.4"],
        "cuda12": ["cupy-cuda12x[ctk]>=14"],
        "cuda13": ["cupy-cuda13x[ctk]>=14"],
    },
    entry_points={"console_scripts": ["minigan = minigan.cli.main:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
