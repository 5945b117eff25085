"""What a token may do, for which accounts and until when; and which token has made a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_tokens = sa.table(
    "tokens",
    sa.column("name", sa.String()),
    sa.column("account_id", sa.String()),
    sa.column("accounts", sa.JSON(none_as_null=True)),
)


def upgrade() -> None:
    """Add the columns. A token of an earlier version may write, for its account, without end."""
    op.add_column("jobs", sa.Column("created_by", sa.String(255)))
    op.add_column("tokens", sa.Column("accounts", sa.JSON()))
    _move_accounts()
    op.drop_column("tokens", "account_id")
    known = sa.CheckConstraint(
        "scope IN ('read', 'write') OR (scope = 'admin' AND accounts IS NULL)",
        name=op.f("ck_tokens_scope_known"),
    )
    default = sa.text("'write'")
    op.add_column(
        "tokens",
        sa.Column("scope", sa.String(8), known, nullable=False, server_default=default),
    )
    for name in ("expires_at", "used_at"):
        op.add_column("tokens", sa.Column(name, sa.DateTime(timezone=True)))


def _move_accounts() -> None:
    connection = op.get_bind()
    limited = sa.select(_tokens.c.name, _tokens.c.account_id).where(
        _tokens.c.account_id.is_not(None)
    )
    for name, account_id in connection.execute(limited).all():
        row = sa.update(_tokens).where(_tokens.c.name == name)
        connection.execute(row.values(accounts=[account_id]))


def downgrade() -> None:
    """Take them away. Tokens that an earlier version would take for more than they are go too."""
    op.add_column("tokens", sa.Column("account_id", sa.String(255)))
    connection = op.get_bind()
    connection.exec_driver_sql("DELETE FROM tokens WHERE scope = 'read' OR expires_at IS NOT NULL")
    limited = sa.select(_tokens.c.name, _tokens.c.accounts).where(_tokens.c.accounts.is_not(None))
    for name, accounts in connection.execute(limited).all():
        row = _tokens.c.name == name
        if len(accounts) == 1:
            change = sa.update(_tokens).where(row).values(account_id=accounts[0])
            connection.execute(change)
        else:
            connection.execute(sa.delete(_tokens).where(row))
    for name in ("used_at", "expires_at", "scope", "accounts"):
        op.drop_column("tokens", name)
    op.drop_column("jobs", "created_by")
