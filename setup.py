"""Which packages there are: all that are found, and two whose folders have names of their own."""

from setuptools import find_packages, setup

ELSEWHERE = {"mh_bench": "bench/mh_bench", "mh_abi.payload": "payload"}

setup(
    packages=[*find_packages(include=["mh_*", "ovmf_patches"], exclude=["mh_model"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
)
