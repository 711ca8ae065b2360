"""A column with a default, a wider and indexed one, constraints, and rows."""

from django.db import migrations, models
from django.db.models import Q


def countries(apps, schema_editor):
    Country = apps.get_model("shop", "Country")
    Country.objects.bulk_create([Country(code="at", name="Austria"), Country(code="jp", name="Japan")])


def no_countries(apps, schema_editor):
    apps.get_model("shop", "Country").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("Customer", "visits", models.IntegerField(default=0)),
        migrations.AlterField("Customer", "name", models.CharField(max_length=100, db_index=True)),
        migrations.AddConstraint("Order", models.CheckConstraint(condition=Q(total__gte=0), name="order_total")),
        migrations.RunPython(countries, no_countries),
    ]
