"""Everything is in setup.cfg; this file lets old tools and extension modules in."""

from setuptools import setup

setup()
