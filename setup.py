"""Packaging, read from settings.ini so that every fact has one home."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read("settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

extras = {
    name.removesuffix("_requirements"): value.split()
    for name, value in settings.items()
    if name.endswith("_requirements")
}
# torch weighs gigabytes, and the developer's tools are no part of the product.
extras["all"] = sorted({r for name, rs in extras.items() if name not in {"train", "dev"} for r in rs})

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    keywords=settings["keywords"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    url=settings["git_url"],
    packages=find_packages(include=["ocr_sprint", "ocr_sprint.*"]),
    package_data={"ocr_sprint": ["filters/*/*/*", "static/*"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Typing :: Typed",
    ],
)
