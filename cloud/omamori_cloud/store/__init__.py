"""The store: tables, migrations, one writer, one reader.

SQLite by default, PostgreSQL by URL: types and statements are those that both have.
"""

from __future__ import annotations
