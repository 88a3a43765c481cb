"""What all programs on one store must agree on, made when it is first asked for."""

from __future__ import annotations

import secrets

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError

from omamori_cloud.errors import StoreUnavailableError

from .batch import insert_or
from .schema import Installation

_SHARE = "share"


def share_name(engine: Engine) -> str:
    """Return the name of the group in which the ingest workers share what boxes send.

    It is a random word. Whoever joins the group is given a part of the events, and mosquitto asks its access list
    only when it delivers: a box that knew the word could not read them, but make them disappear.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    table = Installation
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(
                insert_or(connection, table)
                .values(name=_SHARE, value=f"ingest-{secrets.token_hex(16)}")
                .on_conflict_do_nothing(index_elements=["name"])
            )
            return connection.execute(select(table.value).where(table.name == _SHARE)).scalar_one()
    except DBAPIError as err:
        raise StoreUnavailableError(f"database: {str(err.orig)[:200]}") from err
