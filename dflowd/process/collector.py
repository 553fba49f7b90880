"""How often the daemon looks for cycles among the objects that it made.

Its books grow for a whole run, and nearly all else dies within the turn that made it, by the count of its references.
By Python's own measure each few hundred new objects are walked, most of them about to die, and all books whenever they
have grown by a quarter: a tenth of what a task that does nothing costs, and pauses as long as the books.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 10_000  # before they are walked: some turns' worth, a few milliseconds


def look_for_cycles_seldom() -> None:
    """In all of the process, from now on. What was made so far, modules above all, is not walked again."""
    gc.freeze()
    _, of_young, of_middle = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, of_young, of_middle)
