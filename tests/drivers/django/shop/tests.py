"""The application's tests, as they would be on one PostgreSQL. What several shards cannot do must be refused."""

import datetime
import decimal
import threading
import unittest
import uuid
from collections import Counter

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import DataError, IntegrityError, InternalError, NotSupportedError, OperationalError, ProgrammingError, connection, transaction
from django.db.models import Avg, Count, Exists, F, Max, OuterRef, Prefetch, Q, Subquery, Sum, Value, Window
from django.db.models.functions import Coalesce, Collate, RowNumber, Upper
from django.test import TestCase, TransactionTestCase

from .models import Country, Customer, Entry, Note, Order, Tenant

PLACED = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
TENANTS = range(1, 9)
CUSTOMER = uuid.uuid4()
several_shards = unittest.skipUnless(settings.SHARDS > 1, "for several shards")


def fill():
    Country.objects.get_or_create(code="at", defaults={"name": "Austria"})
    for tenant in TENANTS:
        Tenant.objects.create(id=tenant, name=f"tenant {tenant}")
    customers = [
        Customer.objects.create(tenant_id=tenant, name=f"customer {number}", email=f"{number}@{tenant}.example", country_id="at")
        for tenant in TENANTS
        for number in range(5)
    ]
    orders = [
        Order(
            tenant_id=customer.tenant_id,
            number=at * 3 + number,
            customer_key=customer.id,
            placed=PLACED + datetime.timedelta(days=number),
            total=decimal.Decimal("1.25") * number,
            tags=["a", f"b,{number}"],
            details={"lines": [{"sku": "x", "count": number}]},
        )
        for at, customer in enumerate(customers)
        for number in range(3)
    ]
    assert len(Order.objects.bulk_create(orders, batch_size=50)) == 120


class Reads(TestCase):
    @classmethod
    def setUpTestData(cls):
        fill()

    def test_one_tenants_rows(self):
        tenant = Tenant.objects.get(pk=3)
        self.assertEqual([customer.email for customer in tenant.customers.order_by("email")], [f"{n}@3.example" for n in range(5)])
        order = Order.objects.filter(tenant=3).order_by("number")[2]
        self.assertEqual((order.total, order.tags), (decimal.Decimal("2.50"), ["a", "b,2"]))
        self.assertEqual(order.details, {"lines": [{"sku": "x", "count": 2}]})
        self.assertEqual(Order.objects.filter(tenant=3, details__lines__0__count=2).count(), 5)
        self.assertEqual(Order.objects.filter(tenant=3, tags__contains=["b,1"]).count(), 5)
        self.assertEqual(Order.objects.get(pk=(3, order.number)), order)
        self.assertTrue(Order.objects.filter(tenant=3, placed__gt=PLACED).exists())
        with self.assertRaises(Tenant.DoesNotExist):
            Tenant.objects.get(pk=77)
        with self.assertRaises(Order.MultipleObjectsReturned):
            Order.objects.get(tenant=3)

    def test_related_rows(self):
        with self.assertNumQueries(1):
            orders = list(Order.objects.filter(tenant=3).select_related("customer", "customer__country", "tenant").order_by("number"))
            self.assertEqual(orders[4].customer.name, "customer 1")
            self.assertEqual(orders[4].customer.country.name, "Austria")
            self.assertEqual(orders[4].tenant.name, "tenant 3")
        with self.assertNumQueries(2):
            customers = list(Customer.objects.filter(tenant=3).prefetch_related("orders").order_by("email"))
            self.assertEqual([len(customer.orders.all()) for customer in customers], [3] * 5)
        newest = Prefetch("orders", Order.objects.filter(tenant=3, placed__gt=PLACED), to_attr="newest")
        customers = Customer.objects.filter(tenant=3).prefetch_related(newest)
        self.assertEqual([len(customer.newest) for customer in customers], [2] * 5)

    def test_aggregates_of_one_tenant(self):
        found = Order.objects.filter(tenant=5).aggregate(Sum("total"), Avg("total"), Max("placed"), count=Count("*"))
        self.assertEqual(found["total__sum"], decimal.Decimal("18.75"))
        self.assertEqual((found["total__avg"], found["count"]), (decimal.Decimal("1.25"), 15))
        self.assertEqual(found["placed__max"], PLACED + datetime.timedelta(days=2))
        self.assertEqual(Order.objects.filter(tenant=5).values("placed").annotate(Count("number")).count(), 3)
        self.assertEqual(Order.objects.filter(tenant=5).aggregate(days=Count("placed", distinct=True)), {"days": 3})

    def test_all_tenants(self):
        # A join on the sharding key, grouped by it.
        totals = Tenant.objects.annotate(orders_total=Sum("orders__total"), number=Count("orders")).order_by("id")
        self.assertEqual([(tenant.id, tenant.orders_total, tenant.number) for tenant in totals], [(n, decimal.Decimal("18.75"), 15) for n in TENANTS])
        some = Order.objects.filter(tenant__in=[2, 4, 6]).order_by("-tenant_id", "number")[13:17]
        self.assertEqual([order.tenant_id for order in some], [6, 6, 4, 4])
        with_customers = Tenant.objects.prefetch_related("customers").order_by("id")
        self.assertEqual([len(tenant.customers.all()) for tenant in with_customers], [5] * 8)
        self.assertEqual(Customer.objects.filter(email="2@5.example").values_list("tenant_id", flat=True)[:2].get(), 5)
        big = Order.objects.filter(tenant=OuterRef("pk"), total__gt=2, customer_key__isnull=False)
        self.assertEqual(len(Tenant.objects.filter(Exists(big))), 8)
        newest = Order.objects.filter(tenant=OuterRef("tenant"), customer_key=OuterRef("id")).order_by("-placed")
        rows = Customer.objects.annotate(newest=Subquery(newest.values("placed")[:1])).values_list("newest", flat=True)
        self.assertEqual(set(rows), {PLACED + datetime.timedelta(days=2)})
        rank = Window(RowNumber(), partition_by=[F("tenant")], order_by=[F("placed").desc(), F("number").asc()])
        self.assertEqual(len(Order.objects.annotate(rank=rank).filter(rank=1)), 8)
        # Orders of customers by a join on both columns.
        self.assertEqual(len(Order.objects.filter(customer__name="customer 1").select_related("customer")), 24)
        self.assertEqual(len(Customer.objects.filter(Q(name="customer 1") | Q(visits__gt=5)).annotate(upper=Upper("name"))), 8)

    def test_iterators(self):
        # Server-side cursors.
        self.assertEqual(len(list(Order.objects.filter(tenant=5).iterator(chunk_size=4))), 15)
        customers = Customer.objects.filter(tenant=5).prefetch_related("orders").iterator(chunk_size=2)
        self.assertEqual(sum(len(customer.orders.all()) for customer in customers), 15)
        Entry.objects.bulk_create([Entry(text=f"{number}") for number in range(100)])
        self.assertEqual(sum(int(entry.text) for entry in Entry.objects.iterator(chunk_size=10)), 4950)

    def test_explain_and_raw(self):
        self.assertIn("shop_order", Order.objects.filter(tenant=5).explain())
        self.assertEqual(len(list(Tenant.objects.raw("SELECT * FROM shop_tenant WHERE id = %s", [5]))), 1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s, name FROM shop_tenant WHERE id = %s", ["50 %", 5])
            self.assertEqual(cursor.fetchall(), [("50 %", "tenant 5")])

    def test_rows_of_all_tenants_at_once(self):
        orders = list(Order.objects.all())
        self.assertEqual(Order.objects.count(), len(orders))
        streamed = Order.objects.iterator(chunk_size=7)
        self.assertEqual(sorted(order.pk for order in streamed), sorted(order.pk for order in orders))
        self.assertEqual(Order.objects.aggregate(total=Sum("total"))["total"], sum(order.total for order in orders))
        placed = Order.objects.values("placed").annotate(count=Count("number")).order_by("placed")
        self.assertEqual({row["placed"]: row["count"] for row in placed}, Counter(order.placed for order in orders))

    @several_shards
    def test_what_needs_rows_of_several_shards_at_once_is_refused(self):
        # What only PostgreSQL sorts is gathered.
        sorted_by_icu = list(Customer.objects.order_by(Collate("name", "en-x-icu")))
        self.assertEqual(len(sorted_by_icu), Customer.objects.count())
        for code, query in [
            ("key-update", lambda: Tenant.objects.filter(id=1).update(id=100)),
        ]:
            with self.subTest(code), self.assertRaises(NotSupportedError) as refused, transaction.atomic():
                query()
            self.assertEqual(refused.exception.__cause__.sqlstate, "0A000")
            self.assertIn(f"refusal: {code}", refused.exception.__cause__.diag.message_detail)


class Writes(TestCase):
    @classmethod
    def setUpTestData(cls):
        fill()

    def test_saves(self):
        customer = Customer.objects.filter(tenant=1).first()
        customer.name, customer.visits = "renamed", F("visits") + 5
        customer.save()
        customer.refresh_from_db()
        self.assertEqual((customer.name, customer.visits), ("renamed", 5))
        order = customer.orders.create(number=9000, placed=PLACED, total=1, details={"note": "ünïcode ' \\ \" %s"})
        self.assertEqual(Order.objects.get(tenant=1, number=9000).details, {"note": "ünïcode ' \\ \" %s"})
        self.assertEqual(order.delete(), (1, {"shop.Order": 1}))
        entry = Entry.objects.create(text="entry")
        self.assertEqual(Entry.objects.get(pk=entry.pk).text, "entry")
        entry.text = "changed"
        entry.save()
        self.assertEqual(Entry.objects.filter(text="changed").delete()[0], 1)

    def test_many_rows(self):
        self.assertEqual(Order.objects.filter(total=0).update(total=F("total") + 7), 40)
        self.assertEqual(Order.objects.filter(tenant=8, total=7).delete()[0], 5)
        entries = Entry.objects.bulk_create([Entry(text=f"{number}") for number in range(100)])
        self.assertEqual(len({entry.pk for entry in entries}), 100)
        customers = list(Customer.objects.filter(tenant=2))
        for visits, customer in enumerate(customers):
            customer.visits = visits
        self.assertEqual(Customer.objects.bulk_update(customers, ["visits"]), 5)
        self.assertEqual(sorted(Customer.objects.filter(tenant=2).values_list("visits", flat=True)), list(range(5)))
        self.assertEqual(Customer.objects.filter(tenant=2).update(visits=Coalesce(F("visits") * 2, Value(0))), 5)

    def test_upserts(self):
        for expected in (True, False):
            customer, created = Customer.objects.get_or_create(tenant_id=3, email="new", defaults={"name": "new"})
            self.assertEqual((customer.name, created), ("new", expected))
        for expected, name in [(False, "newer"), (False, "newest")]:
            customer, created = Customer.objects.update_or_create(tenant_id=3, email="new", defaults={"name": name})
            self.assertEqual((customer.name, created), (name, expected))
        customer, created = Customer.objects.update_or_create(tenant_id=4, email="other", defaults={"name": "made"})
        self.assertTrue(created)
        rows = [Order(tenant_id=tenant, number=0, customer_key=CUSTOMER, placed=PLACED, total=7) for tenant in (1, 2)]
        # Of rows with arrays or documents Django makes VALUES, of others UNNEST.
        for _ in range(2):
            made = Order.objects.bulk_create(rows, update_conflicts=True, unique_fields=["tenant", "number"], update_fields=["total"])
        self.assertEqual(list(Order.objects.filter(number=0).order_by("tenant_id")), made)

    def test_upserts_of_arrays(self):
        def upserts():
            rows = [Customer(tenant_id=tenant, name="upsert", email=f"{number}@{tenant}.example", visits=9) for tenant in (1, 2) for number in (4, 5)]
            Customer.objects.bulk_create(rows, update_conflicts=True, unique_fields=["tenant", "email"], update_fields=["visits", "name"])
            found = Customer.objects.filter(name="upsert").order_by("tenant_id", "email").values_list("tenant_id", "email", "visits")
            self.assertEqual(list(found), [(1, "4@1.example", 9), (1, "5@1.example", 9), (2, "4@2.example", 9), (2, "5@2.example", 9)])

        def upserts_everywhere():
            Country.objects.bulk_create([Country(code="at", name="Österreich"), Country(code="is", name="Island")], ignore_conflicts=True)
            Country.objects.bulk_create([Country(code="at", name="Österreich")], update_conflicts=True, unique_fields=["code"], update_fields=["name"])
            self.assertEqual(Country.objects.get(code="at").name, "Österreich")

        upserts()
        upserts_everywhere()

    def refuses(self, code, query):
        with self.assertRaises(NotSupportedError) as refused, transaction.atomic():
            query()
        self.assertEqual(refused.exception.__cause__.sqlstate, "0A000")
        self.assertIn(f"refusal: {code}", refused.exception.__cause__.diag.message_detail)

    def test_deletes_that_cascade(self):
        Note.objects.create(tenant_id=6, text="goes with its tenant")
        count, by_model = Tenant.objects.get(pk=6).delete()
        self.assertEqual((count, by_model), (22, {"shop.Order": 15, "shop.Customer": 5, "shop.Tenant": 1, "shop.Note": 1}))
        self.assertFalse(Customer.objects.filter(tenant=6).exists())

    def test_a_row_known_without_its_tenant(self):
        note = Note.objects.create(tenant_id=7, text="first")
        self.assertEqual(Note.objects.get(pk=note.pk).tenant_id, 7)
        note.text = "second"
        note.save(update_fields=["text"])
        self.assertEqual(Note.objects.filter(tenant=7).get().text, "second")
        if settings.SHARDS > 1:
            # All its columns, the sharding key too, on whatever shard it is.
            with self.assertRaises(NotSupportedError), transaction.atomic():
                note.save()
        self.assertEqual(note.delete()[0], 1)

    def test_djangos_own_tables(self):
        user = User.objects.create_user("ann", "ann@example.com", "secret")
        group = Group.objects.create(name="editors")
        user.groups.add(group)
        user.user_permissions.set(ContentType.objects.get_for_model(Order).permission_set.all())
        self.assertTrue(User.objects.get(username="ann").has_perm("shop.change_order"))
        self.assertEqual(list(User.objects.filter(groups__name="editors")), [user])
        self.assertTrue(self.client.login(username="ann", password="secret"))
        group.delete()
        self.assertEqual(user.groups.count(), 0)

    def test_nested_blocks(self):
        with transaction.atomic():
            for tenant in TENANTS:
                Customer.objects.create(tenant_id=tenant, name="nested", email="nested")
            with self.assertRaises(IntegrityError), transaction.atomic():
                Entry.objects.create(text="taken back")
                Customer.objects.create(tenant_id=4, name="again", email="nested")
            with transaction.atomic():
                Entry.objects.create(text="kept")
            savepoint = transaction.savepoint()
            Tenant.objects.filter(id=1).update(name="not for long")
            transaction.savepoint_rollback(savepoint)
        self.assertEqual(Customer.objects.filter(name="nested").values_list("tenant_id", flat=True).order_by("tenant_id")[7], 8)
        self.assertEqual(list(Entry.objects.values_list("text", flat=True)), ["kept"])
        self.assertEqual(Tenant.objects.get(id=1).name, "tenant 1")
        with self.captureOnCommitCallbacks() as callbacks:
            transaction.on_commit(lambda: None)
        self.assertEqual(len(callbacks), 1)

    def test_errors(self):
        for kind, state, statement in [
            (IntegrityError, "23505", lambda: Tenant.objects.create(id=1, name="again")),
            (IntegrityError, "23514", lambda: Order.objects.filter(tenant=7).update(total=-1)),
            (IntegrityError, "23502", lambda: Customer.objects.filter(tenant=7).update(name=None)),
            (DataError, "22001", lambda: Country.objects.create(code="long", name="x")),
            (ProgrammingError, "42P01", lambda: connection.cursor().execute("SELECT * FROM nowhere")),
        ]:
            with self.subTest(state), self.assertRaises(kind) as failed, transaction.atomic():
                statement()
            self.assertEqual(failed.exception.__cause__.sqlstate, state)
        # Django's foreign keys are checked at the end.
        with self.assertRaises(IntegrityError) as failed, transaction.atomic():
            Customer.objects.create(tenant_id=77, name="x", email="x")
            connection.check_constraints()
        self.assertEqual(failed.exception.__cause__.sqlstate, "23503")


class Blocks(TransactionTestCase):
    """These commit, and are followed by TRUNCATE."""

    def test_commits(self):
        fill()
        with self.assertRaises(IntegrityError), transaction.atomic():
            # Deferred to COMMIT, on one shard of two.
            Tenant.objects.filter(id=1).update(name="gone")
            Customer.objects.create(tenant_id=77, name="x", email="x")
        self.assertEqual(Tenant.objects.get(id=1).name, "tenant 1")
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Tenant.objects.update(name="gone")
            1 / 0
        self.assertEqual(Tenant.objects.filter(name="gone").values_list("id", flat=True).first(), None)
        with self.assertRaises(InternalError), transaction.atomic():
            with self.assertRaises(ProgrammingError):
                connection.cursor().execute("SELEC 1")
            Tenant.objects.get(id=1)
        with transaction.atomic():
            Tenant.objects.select_for_update().get(id=2)
            failed = []
            thread = threading.Thread(target=self.locked_elsewhere, args=(failed,))
            thread.start()
            thread.join()
            self.assertEqual(failed, ["55P03", 0])
        seen = []
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(Tenant.objects.get(id=3).name))
            Tenant.objects.filter(id__in=[3, 4]).update(name="committed")
            self.assertEqual(seen, [])
        self.assertEqual(seen, ["committed"])
        # A connection that comes back from the pool of the router is as new.
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SHOW search_path")
            self.assertEqual(cursor.fetchone(), ('"$user", public',))

    @staticmethod
    def locked_elsewhere(failed):
        try:
            with transaction.atomic():
                Tenant.objects.select_for_update(nowait=True).get(id=2)
        except OperationalError as error:
            failed.append(error.__cause__.sqlstate)
        with transaction.atomic():
            failed.append(len(Tenant.objects.select_for_update(skip_locked=True).filter(id=2)))
        connection.close()

    def test_copies(self):
        fill()
        with transaction.atomic(), connection.cursor() as cursor:
            with cursor.copy("COPY shop_note (id, tenant_id, text) FROM STDIN") as copy:
                for tenant in TENANTS:
                    for number in range(20):
                        copy.write_row((uuid.uuid4(), tenant, f"copied {number}"))
            self.assertEqual(cursor.rowcount, 160)
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT tenant_id, text FROM shop_note) TO STDOUT") as copy:
            self.assertEqual(len(set(copy.rows())), 160)
        self.assertEqual(Note.objects.all().delete()[0], 160)
