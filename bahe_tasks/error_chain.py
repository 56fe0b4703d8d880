"""The errors that an error came from."""

from __future__ import annotations

from collections.abc import Iterator


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, the one it was raised from or while handling, and so on to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
