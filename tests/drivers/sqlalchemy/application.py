"""A SQLAlchemy application with Alembic migrations. Arguments: the URL of an empty database, and how many shards are
behind it (0: it is one plain PostgreSQL). What several shards cannot do must be refused; all else must work."""

import datetime
import decimal
import pathlib
import sys
import threading
import uuid

import alembic.command
import alembic.config
import psycopg
import sqlalchemy as sa
from models import Base, Country, Customer, Entry, Order, Status, Tenant
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import (
    DataError,
    IntegrityError,
    InternalError,
    NoResultFound,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.orm import Session, joinedload, raiseload, selectinload, subqueryload

URL = sa.make_url(sys.argv[1])
SHARDS = int(sys.argv[2])
PLACED = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
TENANTS = range(1, 9)

engine = sa.create_engine(URL.set(drivername="postgresql+psycopg"), pool_size=4, max_overflow=0)


def migrations():
    config = alembic.config.Config()
    config.set_main_option("script_location", str(pathlib.Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        for verb, target in [("upgrade", "head"), ("downgrade", "base"), ("upgrade", "1"), ("upgrade", "head")]:
            getattr(alembic.command, verb)(config, target)
        # What is in the database, read from the catalog, is what the models say.
        alembic.command.check(config)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "2"


def reflection():
    inspector = sa.inspect(engine)
    assert sorted(inspector.get_table_names()) == ["alembic_version", "countries", "customers", "journal", "orders", "tenants"]
    assert [column["name"] for column in inspector.get_columns("orders")] == list(Order.__table__.columns.keys())
    assert inspector.get_pk_constraint("orders")["constrained_columns"] == ["tenant_id", "number"]
    (key,) = inspector.get_foreign_keys("orders")
    assert (key["constrained_columns"], key["referred_table"]) == (["tenant_id", "customer_id"], "customers"), key
    assert [index["name"] for index in inspector.get_indexes("orders")] == ["orders_placed"]
    assert [unique["name"] for unique in inspector.get_unique_constraints("customers")] == ["customers_email"]
    assert [check["name"] for check in inspector.get_check_constraints("orders")] == ["orders_total"]
    assert [(found["name"], found["labels"]) for found in inspector.get_enums()] == [("order_status", ["open", "paid", "sent"])]
    reflected = sa.MetaData()
    reflected.reflect(engine)
    assert isinstance(reflected.tables["orders"].c.tags.type, sa.ARRAY)
    assert reflected.tables["journal"].c.id.identity is not None


def fill():
    with Session(engine) as session:
        for tenant in TENANTS:
            at_home = Tenant(id=tenant, name=f"tenant {tenant}")
            for number in range(1, 6):
                customer = Customer(name=f"customer {number}", email=f"{number}@{tenant}.example", country_code="at")
                customer.orders = [
                    Order(
                        tenant_id=tenant,
                        number=number * 10 + order,
                        placed=PLACED + datetime.timedelta(days=order),
                        total=decimal.Decimal("1.25") * order,
                        tags=["a", f"b,{order}"],
                        details={"lines": [{"sku": "x", "count": order}]},
                    )
                    for order in range(3)
                ]
                at_home.customers.append(customer)
            session.add(at_home)
        session.commit()


def reads():
    with Session(engine) as session:
        tenant = session.get(Tenant, 3)
        assert tenant.name == "tenant 3"
        customers = session.scalars(sa.select(Customer).filter_by(tenant_id=3).order_by(Customer.email)).all()
        assert [customer.email for customer in customers] == [f"{number}@3.example" for number in range(1, 6)]
        # A lazy load carries both columns of the foreign key.
        assert [order.number for order in customers[0].orders] == [10, 11, 12]
        assert customers[0].orders[2].status is Status.open
        assert customers[0].orders[2].details == {"lines": [{"sku": "x", "count": 2}]}
        assert customers[0].orders[1].tags == ["a", "b,1"]
        assert customers[0].country.name == "Austria"
        try:
            session.scalars(sa.select(Tenant).filter_by(id=77)).one()
            raise AssertionError("there is no such tenant")
        except NoResultFound:
            pass
    for load in (joinedload, selectinload, subqueryload):
        with Session(engine) as session:
            query = sa.select(Customer).where(Customer.tenant_id == 3).order_by(Customer.email)
            query = query.options(load(Customer.orders), joinedload(Customer.country), raiseload("*"))
            customers = session.scalars(query).unique().all()
            assert [len(customer.orders) for customer in customers] == [3] * 5, load
    # All tenants at once: joins on the sharding key, merged.
    with Session(engine) as session:
        query = sa.select(Tenant.id, Customer.id, sa.func.count(), sa.func.sum(Order.total))
        query = query.join(Tenant.customers).join(Customer.orders).group_by(Tenant.id, Customer.id)
        rows = session.execute(query).all()
        assert len(rows) == 40 and all(row[2:] == (3, decimal.Decimal("3.75")) for row in rows)
        query = sa.select(Order).where(Order.tenant_id.in_([2, 4, 6])).order_by(Order.tenant_id.desc(), Order.number).limit(4).offset(13)
        assert [(order.tenant_id, order.number) for order in session.scalars(query)] == [(6, 51), (6, 52), (4, 10), (4, 11)]
        query = sa.select(Tenant).options(selectinload(Tenant.customers)).order_by(Tenant.id)
        assert [len(tenant.customers) for tenant in session.scalars(query)] == [5] * 8
        query = sa.select(Tenant).where(Tenant.customers.any(Customer.email == "2@5.example"))
        assert [tenant.id for tenant in session.scalars(query)] == [5]
        per_tenant = sa.select(sa.func.count()).where(Order.tenant_id == 5).scalar_subquery()
        assert session.scalar(sa.select(per_tenant)) == 15
        ranked = sa.func.row_number().over(partition_by=Order.tenant_id, order_by=Order.placed.desc())
        ranked = sa.select(Order.tenant_id, Order.number, ranked.label("rank")).subquery()
        assert len(session.execute(sa.select(ranked).where(ranked.c.rank == 1)).all()) == 8


def writes():
    with Session(engine) as session:
        customer = session.scalars(sa.select(Customer).filter_by(tenant_id=1, email="1@1.example")).one()
        customer.name = "renamed"
        customer.orders[0].status = Status.paid
        customer.orders[0].details = {"note": "ünïcode ' \\ \""}
        session.add(Entry(text="first"))
        session.flush()
        session.refresh(customer)
        assert customer.name == "renamed"
        session.rollback()
        assert customer.name == "customer 1"
        customer.visits = Customer.visits + 5
        session.commit()
        assert customer.visits == 5
    with Session(engine) as session:
        result = session.execute(sa.update(Order).where(Order.total == 0).values(status=Status.sent))
        assert result.rowcount == 40
        result = session.execute(sa.delete(Order).where(Order.tenant_id == 8, Order.total == 0))
        assert result.rowcount == 5
        gone = sa.delete(Order).where(Order.tenant_id == 8, Order.number == 11).returning(Order.total)
        assert session.scalars(gone).all() == [decimal.Decimal("1.25")]
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Order).where(Order.tenant_id == 8)) == 9


def inserts_of_many_rows():
    with Session(engine) as session:
        entries = [Entry(text=f"entry {number}") for number in range(250)]
        session.add_all(entries)
        session.commit()
        assert len({entry.id for entry in entries}) == 250
        assert [entry.text for entry in session.scalars(sa.select(Entry).order_by(Entry.id))][:2] == ["entry 0", "entry 1"]
    many = [
        {"tenant_id": tenant, "id": uuid.uuid4(), "name": "bulk", "email": f"bulk {number}"} for tenant in TENANTS for number in range(20)
    ]
    with Session(engine) as session:
        # One statement of many rows for many shards, and the rows that come back.
        returned = session.scalars(sa.insert(Customer).returning(Customer, sort_by_parameter_order=True), many).all()
        assert [(customer.tenant_id, customer.email) for customer in returned] == [(row["tenant_id"], row["email"]) for row in many]
        assert all(customer.visits == 0 for customer in returned)
        session.commit()
    with engine.begin() as connection:
        changes = [{"the_tenant": row["tenant_id"], "the_id": row["id"], "visits": at} for at, row in enumerate(many)]
        statement = sa.update(Customer.__table__).where(Customer.tenant_id == sa.bindparam("the_tenant"), Customer.id == sa.bindparam("the_id"))
        connection.execute(statement, changes)
    with engine.begin() as connection:
        statement = sa.delete(Customer.__table__).where(Customer.name == "bulk").returning(Customer.visits)
        assert sorted(connection.scalars(statement)) == list(range(160))


def upserts():
    def upsert(visits):
        statement = insert(Customer).values(tenant_id=2, id=uuid.uuid4(), name="upsert", email="upsert", visits=visits)
        changed = {"visits": Customer.visits + statement.excluded.visits}
        return statement.on_conflict_do_update(constraint="customers_email", set_=changed).returning(Customer.visits)

    def by_columns(email):
        statement = insert(Customer).values(tenant_id=2, id=uuid.uuid4(), name="upsert", email=email)
        return statement.on_conflict_do_nothing(index_elements=["tenant_id", "email"]).returning(Customer.email)

    with engine.begin() as connection:
        assert connection.scalar(upsert(3)) == 3
        assert connection.scalar(upsert(4)) == 7
        assert connection.scalars(by_columns("upsert")).all() == []
        assert connection.scalars(by_columns("upsert 2")).all() == ["upsert 2"]
        rows = [{"code": code, "name": name} for code, name in [("at", "Österreich"), ("is", "Island")]]
        statement = insert(Country).values(rows)
        connection.execute(statement.on_conflict_do_update(index_elements=["code"], set_={"name": statement.excluded.name}))
        assert connection.scalars(sa.select(Country.name).order_by(Country.code)).all() == ["Österreich", "Island", "Japan"]
    with engine.begin() as connection:
        connection.execute(sa.delete(Customer).where(Customer.tenant_id == 2, Customer.name == "upsert"))


def transactions():
    with Session(engine) as session:
        # One block over all shards; a nested one fails and is taken back alone.
        for tenant in TENANTS:
            session.add(Order(tenant_id=tenant, number=99, customer_id=any_customer(session, tenant), placed=PLACED, total=1))
            session.flush()
        try:
            with session.begin_nested():
                session.add(Entry(text="nested"))
                session.flush()
                session.add(Order(tenant_id=4, number=99, customer_id=any_customer(session, 4), placed=PLACED, total=1))
                session.flush()
            raise AssertionError("the order exists")
        except IntegrityError as error:
            assert error.orig.sqlstate == "23505" and error.orig.diag.constraint_name == "orders_pkey"
        with session.begin_nested():
            session.add(Entry(text="kept"))
        session.commit()
    with engine.connect() as connection:
        numbers = connection.scalars(sa.select(Order.tenant_id).where(Order.number == 99).order_by(Order.tenant_id)).all()
        assert numbers == list(TENANTS)
        texts = connection.scalars(sa.select(Entry.text).where(Entry.text.in_(["nested", "kept"]))).all()
        assert texts == ["kept"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.delete(Order).where(Order.number == 99))
        connection.execute(sa.text("VACUUM journal"))
    # Isolation levels: one tenant is one shard.
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        count = sa.select(sa.func.count()).select_from(Order).where(Order.tenant_id == 1)
        before = connection.scalar(count)
        with engine.begin() as other:
            other.execute(sa.delete(Order).where(Order.tenant_id == 1, Order.number == 10))
        assert connection.scalar(count) == before
        connection.rollback()
        assert connection.scalar(count) == before - 1
    with engine.connect().execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True) as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "serializable"
        assert connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
        fails(InternalError, "25006", connection, sa.update(Tenant).where(Tenant.id == 1).values(name="x"))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
        assert connection.scalar(sa.text("SHOW transaction_read_only")) == "off"
    # A row lock holds another client off.
    with engine.connect() as connection:
        connection.execute(sa.select(Tenant).where(Tenant.id == 6).with_for_update())
        with engine.connect() as other:
            fails(OperationalError, "55P03", other, sa.select(Tenant).where(Tenant.id == 6).with_for_update(nowait=True))
            skipping = sa.select(Tenant).where(Tenant.id == 6).with_for_update(skip_locked=True)
            assert other.execute(skipping).all() == []


def any_customer(session, tenant):
    return session.scalars(sa.select(Customer.id).where(Customer.tenant_id == tenant).limit(1)).one()


def fails(kind, state, connection, statement):
    try:
        connection.execute(statement)
        raise AssertionError(f"must fail: {statement}")
    except kind as error:
        assert error.orig.sqlstate == state, error
    connection.rollback()


def failures():
    with engine.connect() as connection:
        fails(IntegrityError, "23503", connection, sa.insert(Customer).values(tenant_id=77, name="x", email="x"))
        fails(IntegrityError, "23502", connection, sa.insert(Customer).values(tenant_id=7, name=None, email="x"))
        fails(IntegrityError, "23514", connection, sa.update(Order).where(Order.tenant_id == 7).values(total=-1))
        fails(IntegrityError, "23505", connection, sa.update(Customer).where(Customer.tenant_id == 7).values(email="x"))
        fails(IntegrityError, "23503", connection, sa.delete(Tenant))
        fails(DataError, "22P02", connection, sa.text("SELECT * FROM tenants WHERE id = 'x'"))
        fails(ProgrammingError, "42P01", connection, sa.text("SELECT * FROM nowhere"))
        fails(ProgrammingError, "42601", connection, sa.text("SELEC 1"))
    with Session(engine) as session:
        session.add(Tenant(id=1, name="again"))
        try:
            session.flush()
            raise AssertionError("the tenant exists")
        except IntegrityError:
            pass
        session.rollback()
        assert session.get(Tenant, 1).name == "tenant 1"


def streams():
    with Session(engine) as session:
        # A server-side cursor.
        query = sa.select(Order.number).where(Order.tenant_id == 5).order_by(Order.number).execution_options(yield_per=4)
        assert len(session.scalars(query).all()) == 15
    with engine.connect().execution_options(stream_results=True, max_row_buffer=10) as connection:
        result = connection.execute(sa.select(Entry.text).where(Entry.text.like("entry %")).order_by(Entry.id))
        assert result.fetchone() == ("entry 0",)
        assert len(list(result.partitions(50))) == 5


def copies():
    with engine.begin() as connection:
        raw = connection.connection.driver_connection
        with raw.cursor() as cursor:
            with cursor.copy("COPY customers (tenant_id, id, name, email) FROM STDIN") as copy:
                for tenant in TENANTS:
                    for number in range(25):
                        copy.write_row((tenant, uuid.uuid4(), "copied", f"copied {number}"))
            assert cursor.rowcount == 200
            with cursor.copy("COPY (SELECT tenant_id, email FROM customers WHERE name = 'copied') TO STDOUT") as copy:
                assert len({row for row in copy.rows()}) == 200
        assert connection.execute(sa.delete(Customer).where(Customer.name == "copied")).rowcount == 200


def pools():
    # What one checkout leaves behind, the next does not see.
    small = sa.create_engine(URL.set(drivername="postgresql+psycopg"), pool_size=1, max_overflow=0, pool_pre_ping=True)

    @sa.event.listens_for(small, "reset")
    def reset(connection, record, state):
        connection.rollback()
        connection.autocommit = True
        connection.execute("DISCARD ALL")
        connection.autocommit = False

    for number in range(5):
        with small.connect() as connection:
            assert connection.scalar(sa.text("SHOW search_path")) == '"$user", public'
            assert connection.scalar(sa.text("SELECT current_setting('app.tenant', true)")) in (None, "")
            connection.execute(sa.text("SET search_path = pg_catalog"))
            connection.execute(sa.text("SELECT set_config('app.tenant', :tenant, false)"), {"tenant": str(number)})
            assert connection.scalar(sa.text("SELECT current_setting('app.tenant')")) == str(number)
            connection.execute(sa.text("UPDATE public.tenants SET name = 'left open' WHERE id = 1"))
            if number % 2:
                connection.commit()
    small.dispose()
    with engine.connect() as connection:
        assert connection.scalar(sa.select(Tenant.name).where(Tenant.id == 1)) == "left open"
        connection.execute(sa.update(Tenant).where(Tenant.id == 1).values(name="tenant 1"))
        connection.commit()

    # More threads than connections.
    def work(tenant, failed):
        try:
            for _ in range(10):
                with Session(engine) as session:
                    assert session.get(Tenant, tenant).name == f"tenant {tenant}"
                    session.execute(sa.update(Tenant).where(Tenant.id == tenant).values(name=f"tenant {tenant}"))
                    session.commit()
        except BaseException as error:
            failed.append(error)

    failed = []
    threads = [threading.Thread(target=work, args=(tenant, failed)) for tenant in TENANTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def all_tenants():
    """What takes rows of several shards at once."""
    with engine.connect() as connection:
        orders = connection.execute(sa.select(Order.number)).scalars().all()
        assert connection.execute(sa.select(sa.func.count()).select_from(Order)).scalar_one() == len(orders)
        streamed = sa.select(Order.number).execution_options(stream_results=True, yield_per=7)
        assert sorted(connection.execute(streamed).scalars()) == sorted(orders)
        visits = connection.execute(sa.select(Customer.visits)).scalars().all()
        joined = sa.select(Customer).join(Order, Order.number == Customer.visits)
        expected = sum(orders.count(number) for number in visits)
        assert len(connection.execute(joined).all()) == expected


def refusals():
    if SHARDS == 0:
        return
    with engine.connect() as connection:
        refused("prepare-transaction", connection, sa.text("PREPARE TRANSACTION 'mine'"))
    if SHARDS == 1:
        return
    row = {"tenant_id": 1, "name": "x", "email": "x", "id": uuid.uuid4()}
    statements = [
        ("key-update", sa.update(Tenant).where(Tenant.id == 1).values(id=100)),
        ("key-value", sa.insert(Tenant.__table__).values(id=sa.text("90 + 1"), name="x")),
        ("on-conflict", insert(Customer).values(row).on_conflict_do_nothing(index_elements=["id"])),
    ]
    for code, statement in statements:
        with engine.connect() as connection:
            refused(code, connection, statement)


def is_refusal(error, code):
    return error.orig.sqlstate == "0A000" and f"refusal: {code}" in str(error.orig.diag.message_detail)


def refused(code, connection, statement):
    try:
        connection.execute(statement)
        raise AssertionError(f"must be refused: {statement}")
    except NotSupportedError as error:
        assert is_refusal(error, code), (code, error, error.orig.diag.message_detail)
    connection.rollback()


steps = [migrations, reflection, fill, reads, writes, inserts_of_many_rows, upserts, transactions, failures, streams, copies, pools, all_tenants, refusals]
for step in steps:
    step()
engine.dispose()
