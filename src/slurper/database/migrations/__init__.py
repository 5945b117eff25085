"""The schema's history, as Alembic revisions that travel inside the package.

They run whenever a database is opened, so there is no command to remember and no alembic.ini. A
revision is never edited once released; `schema.py` says where they lead.

Alembic itself is loaded only where there is history to go through. A new database is made from
`schema.py` at once, which a test shows to come to the same, and one at the newest revision needs
nothing; that is every `slurper copy` and nearly every start of a server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from slurper.database import schema

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parent

_revisions = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table, as it makes it itself."""


class UnknownRevisionError(Exception):
    """The database is at a revision that this version does not have."""


def upgrade(connection: Connection) -> None:
    """Bring the database to the newest schema, inside the connection's open transaction.

    Raises:
        UnknownRevisionError: a newer version has written it.
    """
    if not inspect(connection).has_table(_revisions.name):
        schema.metadata.create_all(connection, checkfirst=False)  # a stranger's table is an error
        _revisions.create(connection, checkfirst=False)
        connection.execute(insert(_revisions), {"version_num": newest_revision()})
    elif connection.execute(select(_revisions.c.version_num)).scalar() != newest_revision():
        migrate(connection)


def newest_revision() -> str:
    """The revision that `schema.py` describes; files of revisions begin with their names."""
    return max(path.name for path in _FOLDER.glob("versions/[0-9]*.py")).partition("_")[0]


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the database forward to `revision`, step by step.

    Raises:
        UnknownRevisionError: a newer version has written it.
    """
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(configure(connection), revision)
    except CommandError as error:
        raise UnknownRevisionError(str(error)) from error


def configure(connection: Connection) -> Config:
    """Return what Alembic's commands need to work on `connection`."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
