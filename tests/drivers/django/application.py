"""A Django project. Arguments: the URL of an empty database, and how many shards are behind it (0: it is one plain
PostgreSQL). Runs the migrations and the tests, parameters merged by the client and bound by the server."""

import io
import sys
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings

url = urlsplit(sys.argv[1])
settings.configure(
    SHARDS=int(sys.argv[2]),
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.postgres", "shop"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": url.hostname,
            "PORT": url.port,
            "USER": unquote(url.username),
            "PASSWORD": unquote(url.password),
            "NAME": url.path[1:],
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    SECRET_KEY="a test's",
    USE_TZ=True,
    TIME_ZONE="Asia/Tokyo",
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.test.runner import DiscoverRunner  # noqa: E402


class InPlace(DiscoverRunner):
    """Runs in the database as it is: CREATE DATABASE is not for a router."""

    def setup_databases(self, **kwargs):
        return []

    def teardown_databases(self, old_config, **kwargs):
        connections.close_all()


def migrations():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
    for target in [[], ["shop", "zero"], ["shop", "0001"], []]:
        call_command("migrate", *target, verbosity=0)
    plan = io.StringIO()
    call_command("showmigrations", "shop", stdout=plan)
    assert plan.getvalue().count("[X]") == 3, plan.getvalue()


def introspection():
    models = io.StringIO()
    call_command("inspectdb", stdout=models)
    found = models.getvalue()
    for line in ["class ShopOrder(models.Model):", "db_table = 'shop_order'", "unique_together = (('tenant', 'email'),)"]:
        assert found.count(line) == 1, (line, found)
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, "shop_order")
        assert constraints["order_total"]["check"] and constraints["order_placed"]["columns"] == ["tenant_id", "placed"], constraints


migrations()
introspection()
for server_side_binding in (False, True):
    connection.close()
    connection.settings_dict["OPTIONS"]["server_side_binding"] = server_side_binding
    if failures := InPlace(verbosity=0, interactive=False).run_tests(["shop"]):
        raise SystemExit(f"{failures} failures with server_side_binding={server_side_binding}")
