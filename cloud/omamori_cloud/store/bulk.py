"""Inserts many rows at once, the way that each engine is quick at.

PostgreSQL is given one array for each column: the statement is the same however many rows there are, so it is parsed
and planned once. A statement with a thousand rows of placeholders costs the driver three times what all else costs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, String, TextClause, text
from sqlalchemy.dialects import postgresql, sqlite

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # left untyped there


def insert_many(
    connection: Connection,
    table: Any,
    rows: Sequence[dict[str, Any]],
    *,
    returning: tuple[str, ...],
    unique: tuple[str, ...] = (),
) -> Sequence[Any]:
    """Insert rows, and return these columns of those that were inserted, in any order.

    Args:
        connection: In a transaction.
        table: The mapped class.
        rows: At least one; all with the same columns.
        returning: What to return of each row.
        unique: Columns of which a row with the same values may be there already; it stays as it is.
    """
    if connection.dialect.name == "postgresql":
        names = tuple(rows[0])
        statement = _with_arrays(table, names, returning, unique)
        return connection.execute(statement, {f"v_{name}": [row[name] for row in rows] for name in names}).all()
    insert = sqlite.insert(table)
    if unique:
        insert = insert.on_conflict_do_nothing(index_elements=list(unique))
    return connection.execute(insert.returning(*(getattr(table, name) for name in returning)), rows).all()


@functools.lru_cache(maxsize=64)
def _with_arrays(table: Any, names: tuple[str, ...], returning: tuple[str, ...], unique: tuple[str, ...]) -> TextClause:
    quote = _DIALECT.identifier_preparer.quote

    def listed(chosen: tuple[str, ...]) -> str:
        return ", ".join(quote(name) for name in chosen)

    arrays = ", ".join(f"CAST(:v_{name} AS {_array(table.__table__.columns[name].type)})" for name in names)
    conflict = f"ON CONFLICT ({listed(unique)}) DO NOTHING " if unique else ""
    return text(
        f"INSERT INTO {quote(table.__tablename__)} ({listed(names)}) SELECT * FROM unnest({arrays}) "  # noqa: S608 - names of columns
        f"{conflict}RETURNING {listed(returning)}"
    )


def _array(kind: Any) -> str:
    if isinstance(kind, String):
        return "TEXT[]"  # a cast to VARCHAR(n) would cut off what is too long, without a word
    if isinstance(kind, LargeBinary):
        return "BYTEA[]"
    return f"{kind.compile(dialect=_DIALECT)}[]"
