"""The models of a small shop for many tenants: what a tenant owns is sharded by the tenant, countries are a reference
table, and the journal is a plain table that no shard map names."""

import datetime
import decimal
import enum
import uuid
from typing import Optional

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Numeric,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Status(enum.Enum):
    open = "open"
    paid = "paid"
    sent = "sent"


class Country(Base):
    __tablename__ = "countries"
    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str]


class Tenant(Base):
    __tablename__ = "tenants"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    customers: Mapped[list["Customer"]] = relationship(back_populates="tenant", cascade="all, delete-orphan")


class Customer(Base):
    __tablename__ = "customers"
    __table_args__ = (UniqueConstraint("tenant_id", "email", name="customers_email"),)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]
    email: Mapped[str]
    visits: Mapped[int] = mapped_column(server_default="0")
    country_code: Mapped[Optional[str]] = mapped_column(ForeignKey("countries.code"))
    tenant: Mapped[Tenant] = relationship(back_populates="customers")
    country: Mapped[Optional[Country]] = relationship()
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", order_by="Order.number")


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "customer_id"], ["customers.tenant_id", "customers.id"]),
        CheckConstraint("total >= 0", name="orders_total"),
        Index("orders_placed", "tenant_id", "placed"),
    )
    tenant_id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    customer_id: Mapped[uuid.UUID]
    placed: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True))
    status: Mapped[Status] = mapped_column(Enum(Status, name="order_status"), default=Status.open)
    total: Mapped[decimal.Decimal] = mapped_column(Numeric(12, 2))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    details: Mapped[dict] = mapped_column(JSONB, default=dict)
    customer: Mapped[Customer] = relationship(back_populates="orders")


class Entry(Base):
    """A line of the journal: its number comes from the database."""

    __tablename__ = "journal"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    written: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    text: Mapped[str]
