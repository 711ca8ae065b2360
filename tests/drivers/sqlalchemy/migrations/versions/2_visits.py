"""A column with a default, a wider type, an index, and rows."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade():
    op.add_column("customers", sa.Column("visits", sa.Integer(), server_default="0", nullable=False))
    op.alter_column("orders", "total", type_=sa.Numeric(12, 2), existing_type=sa.Numeric(10, 2), existing_nullable=False)
    op.create_index("orders_placed", "orders", ["tenant_id", "placed"])
    countries = sa.table("countries", sa.column("code", sa.String), sa.column("name", sa.String))
    op.bulk_insert(countries, [{"code": "at", "name": "Austria"}, {"code": "jp", "name": "Japan"}])


def downgrade():
    op.execute("DELETE FROM countries")
    op.drop_index("orders_placed", "orders")
    op.alter_column("orders", "total", type_=sa.Numeric(10, 2), existing_type=sa.Numeric(12, 2), existing_nullable=False)
    op.drop_column("customers", "visits")
