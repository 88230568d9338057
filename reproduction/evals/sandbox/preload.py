"""What solutions and tests commonly import, loaded once in the processes that fork rather than in every child."""

import bisect  # noqa: F401
import collections  # noqa: F401
import copy  # noqa: F401
import datetime  # noqa: F401
import functools  # noqa: F401
import gc
import hashlib  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json  # noqa: F401
import math  # noqa: F401
import operator  # noqa: F401
import random  # noqa: F401
import re  # noqa: F401
import statistics  # noqa: F401
import string  # noqa: F401
import typing  # noqa: F401


def settle():
    """Call last before forking: a collection in a child would otherwise write to, and so copy, every page of ours."""
    gc.collect()
    gc.freeze()
