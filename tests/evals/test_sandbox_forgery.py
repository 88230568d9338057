"""No candidate passes but by returning what the test expects."""

import pytest
from sandbox_jobs import outcome

FORGERIES = {
    "an object equal to everything": """
        class Yes:
            def __eq__(self, other): return True
        def f(): return Yes()
    """,
    "an int equal to everything": """
        class Yes(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def f(): return Yes(1)
    """,
    "a list that contains everything": """
        class Yes(list):
            def __eq__(self, other): return True
            def __contains__(self, item): return True
        def f(): return Yes()
    """,
    "sys.exit": "import sys\ndef f(): sys.exit(0)",
    "sys.exit while loading": "import sys\nsys.exit(0)",
    "os._exit": "import os\ndef f(): os._exit(0)",
    "os._exit while loading": "import os\nos._exit(0)",
    "a BaseException": "class E(BaseException): pass\ndef f(): raise E",
    "a BaseException that cannot be printed": """
        class E(BaseException):
            def __str__(self): raise SystemExit
        def f(): raise E
    """,
    "an atexit handler": "import atexit, os\natexit.register(lambda: os._exit(0))\nraise SystemExit",
    "the frames above": """
        import sys
        def f():
            frame = sys._getframe()
            while frame:
                for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
                    try: value.append("passed")
                    except Exception: pass
                frame = frame.f_back
    """,
    "the builtins": """
        import builtins
        builtins.AssertionError = type("Never", (Exception,), {})
        builtins.isinstance = lambda *_: True
        builtins.__import__ = None
        def f(): return 41
    """,
    "the wire": """
        import sys
        wire = sys.modules["wire"]
        wire.encode = lambda value, depth=0: ["passed", ""]
        wire.pack = lambda message: b"\\0\\0\\0\\x0e[\\"passed\\", \\"\\"]"
        def f(): return 41
    """,
    "every descriptor": r"""
        import os
        def f():
            for fd in range(64):
                for text in (b'["passed", ""]', b'["return", ["int", "29"]]'):
                    try: os.write(fd, len(text).to_bytes(4, "big") + text)
                    except OSError: pass
            return 41
    """,
    "replies in advance": r"""
        import os
        for fd in range(3, 64):
            text = b'["return", true]'
            try: os.write(fd, (len(text).to_bytes(4, "big") + text) * 3)
            except OSError: pass
        def f(): return 41
    """,
    "the test's own text": """
        import gc
        SECRET = "assert candidate"
        def f():
            import sys
            frames, frame = [], sys._getframe()
            while frame: frames.append(frame.f_locals); frame = frame.f_back
            texts = [str(x)[:100000] for x in gc.get_objects() + frames]
            return 42 if [t for t in texts if SECRET + "()" in t and "gc.get_objects" not in t] else 41
    """,
}


@pytest.mark.parametrize("attack", FORGERIES)
def test_no_forgery_passes(attack):
    found = outcome(FORGERIES[attack])
    assert found.outcome in {"failed", "error", "exited", "not_plain"}, found


def test_a_test_that_swallows_exceptions_does_not_hide_that_the_candidate_ended():
    swallow = "try:\n    candidate()\nexcept BaseException:\n    pass"
    assert outcome("import os\ndef f(): os._exit(0)", swallow).outcome == "exited"
    assert outcome("def f(): return object()", swallow).outcome == "not_plain"
    assert outcome("def f():\n    while True: pass", swallow).outcome == "timeout"
    assert outcome("def f(): return 1", swallow).passed


def test_a_stop_iteration_does_not_end_a_loop_of_the_test():
    test = "assert all(map(lambda x: candidate(x) == x, range(3)))"
    assert not outcome("def f(x): raise StopIteration", test).passed
    assert outcome("def f(x): return x", test).passed


@pytest.mark.parametrize("value", ["object()", "iter([42])", "1j", "'x' * 2**21", "DEEP", "LOOP", "{(): ...}"])
def test_values_that_are_not_plain_do_not_cross(value):
    program = f"""
        DEEP = []
        for _ in range(5000): DEEP = [DEEP]
        LOOP = []
        LOOP.append(LOOP)
        def f(): return {value}
    """
    assert outcome(program).outcome == "not_plain"
