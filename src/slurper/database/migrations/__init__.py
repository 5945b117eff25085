"""The schema's history, as Alembic revisions that travel inside the package.

They run whenever a database is opened, so there is no command to remember and no alembic.ini. A
revision is never edited once released; `schema.py` says where they lead.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database forward to `revision`, inside the connection's open transaction."""
    command.upgrade(configure(connection), revision)


def configure(connection: Connection) -> Config:
    """Return what Alembic's commands need to work on `connection`."""
    config = Config()
    folder = str(Path(__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
