"""Source code that tests read."""

import ast
import gc


def parsed(text: str) -> ast.Module:
    """Parse it undisturbed.

    Garbage that is found just then may print a traceback, which parses its own lines; before 3.11.5 Python loses count of
    its depth over that (SystemError).
    """
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        gc.enable()
