"""A small shop for many tenants. What a tenant owns has the tenant in its primary key and is sharded by it; countries
are a reference table; notes are sharded too, but identified without their tenant; the rest, Django's own tables with
it, is local."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class Country(models.Model):
    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=100)


class Tenant(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.CharField(max_length=100)


class Customer(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "id")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="customers")
    id = models.UUIDField(default=uuid.uuid4)
    name = models.CharField(max_length=100, db_index=True)
    email = models.EmailField()
    visits = models.IntegerField(default=0)
    country = models.ForeignKey(Country, models.PROTECT, null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "email"], name="customer_email")]


class Order(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "number")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="orders")
    number = models.IntegerField()
    customer_key = models.UUIDField()
    customer = models.ForeignObject(
        Customer,
        models.CASCADE,
        from_fields=["tenant_id", "customer_key"],
        to_fields=["tenant_id", "id"],
        related_name="orders",
    )
    placed = models.DateTimeField()
    total = models.DecimalField(max_digits=12, decimal_places=2)
    tags = ArrayField(models.CharField(max_length=20), default=list)
    details = models.JSONField(default=dict)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(total__gte=0), name="order_total")]
        indexes = [models.Index(fields=["tenant", "placed"], name="order_placed")]


class Note(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    text = models.TextField()


class Entry(models.Model):
    """A line of the journal: its number comes from the database."""

    written = models.DateTimeField(auto_now_add=True)
    text = models.TextField()
