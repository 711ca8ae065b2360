"""An index that is built while others write, and a key that only Django knows."""

import django.db.models.deletion
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0002_visits")]
    operations = [
        AddIndexConcurrently("Order", models.Index(fields=["tenant", "placed"], name="order_placed")),
        migrations.AddField(
            "Order",
            "customer",
            models.ForeignObject(
                "shop.Customer",
                django.db.models.deletion.CASCADE,
                from_fields=["tenant_id", "customer_key"],
                to_fields=["tenant_id", "id"],
                related_name="orders",
            ),
        ),
    ]
