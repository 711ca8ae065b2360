"""The tables."""

import uuid

import django.db.models.deletion
from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Country",
            fields=[
                ("code", models.CharField(max_length=2, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
            ],
        ),
        migrations.CreateModel(
            name="Tenant",
            fields=[
                ("id", models.IntegerField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
            ],
        ),
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False, verbose_name="ID", auto_created=True)),
                ("written", models.DateTimeField(auto_now_add=True)),
                ("text", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            name="Customer",
            fields=[
                ("pk", models.CompositePrimaryKey("tenant_id", "id", primary_key=True, blank=True, editable=False, serialize=False)),
                ("id", models.UUIDField(default=uuid.uuid4)),
                ("name", models.CharField(max_length=50)),
                ("email", models.EmailField(max_length=254)),
                ("country", models.ForeignKey("shop.Country", django.db.models.deletion.PROTECT, null=True)),
                ("tenant", models.ForeignKey("shop.Tenant", django.db.models.deletion.CASCADE, related_name="customers")),
            ],
            options={"constraints": [models.UniqueConstraint(fields=["tenant", "email"], name="customer_email")]},
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("pk", models.CompositePrimaryKey("tenant_id", "number", primary_key=True, blank=True, editable=False, serialize=False)),
                ("number", models.IntegerField()),
                ("customer_key", models.UUIDField()),
                ("placed", models.DateTimeField()),
                ("total", models.DecimalField(max_digits=12, decimal_places=2)),
                ("tags", ArrayField(models.CharField(max_length=20), default=list)),
                ("details", models.JSONField(default=dict)),
                ("tenant", models.ForeignKey("shop.Tenant", django.db.models.deletion.CASCADE, related_name="orders")),
            ],
        ),
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("text", models.TextField()),
                ("tenant", models.ForeignKey("shop.Tenant", django.db.models.deletion.CASCADE)),
            ],
        ),
    ]
