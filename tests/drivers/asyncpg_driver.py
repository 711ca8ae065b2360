"""asyncpg against the URL in the first argument: prepared, transactions, errors, cursors, COPY, pool, cancel."""

import asyncio
import datetime
import decimal
import sys

import asyncpg

URL = sys.argv[1]
OPENED = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)


async def insert_and_read(connection):
    for aid in range(1, 41):
        row = (aid, f"näme {aid}", aid * 10, decimal.Decimal("1.50") * aid, OPENED, bytes([0, aid, 255]), ["a", None])
        tag = await connection.execute("INSERT INTO accounts VALUES ($1, $2, $3, $4, $5, $6, $7)", *row)
        assert tag == "INSERT 0 1"
        assert tuple(await connection.fetchrow("SELECT * FROM accounts WHERE aid = $1", aid)) == row
    rows = await connection.fetch("SELECT aid FROM accounts ORDER BY aid DESC LIMIT 3")
    assert [row["aid"] for row in rows] == [40, 39, 38]
    rows = await connection.fetch("SELECT aid FROM accounts WHERE aid = ANY($1::int8[]) ORDER BY aid", [3, 1, 99])
    assert [row["aid"] for row in rows] == [1, 3]


async def prepared(connection):
    statement = await connection.prepare("SELECT name, balance FROM accounts WHERE aid = $1")
    assert [attribute.name for attribute in statement.get_attributes()] == ["name", "balance"]
    for aid in range(1, 41):
        assert await statement.fetchval(aid, column=1) == aid * 10
    await connection.executemany("UPDATE accounts SET name = $2 WHERE aid = $1", [(aid, f"n{aid}") for aid in range(1, 41)])
    assert await connection.fetchval("SELECT name FROM accounts WHERE aid = 33") == "n33"
    try:
        await connection.executemany("UPDATE accounts SET balance = $2 WHERE aid = $1", [(1, 5), (2, -5), (3, 5)])
        raise AssertionError("a check constraint must fail")
    except asyncpg.CheckViolationError:
        pass
    assert await connection.fetchval("SELECT balance FROM accounts WHERE aid = 1") == 10


async def transactions(connection):
    async with connection.transaction():
        for aid in range(1, 9):
            await connection.execute("UPDATE accounts SET balance = balance + 1 WHERE aid = $1", aid)
        try:
            async with connection.transaction():
                await connection.execute("UPDATE accounts SET balance = 0 WHERE aid = 9")
                await connection.execute("UPDATE accounts SET balance = -1 WHERE aid = 10")
            raise AssertionError("a check constraint must fail")
        except asyncpg.CheckViolationError as error:
            assert error.sqlstate == "23514" and error.constraint_name == "accounts_balance_check"
    rows = await connection.fetch("SELECT balance FROM accounts WHERE aid <= 10 ORDER BY aid")
    assert [row[0] for row in rows] == [11, 21, 31, 41, 51, 61, 71, 81, 90, 100]
    async with connection.transaction():
        numbers = [row[0] async for row in connection.cursor("SELECT n FROM generate_series(1, 120) n ORDER BY n")]
        assert numbers == list(range(1, 121))


async def failures(connection):
    for statement, error in [
        ("SELECT nothing FROM accounts WHERE aid = 1", asyncpg.UndefinedColumnError),
        ("INSERT INTO accounts (aid) VALUES (1)", asyncpg.UniqueViolationError),
        ("SELEC", asyncpg.PostgresSyntaxError),
        ("SELECT 1/0", asyncpg.DivisionByZeroError),
    ]:
        try:
            await connection.execute(statement)
            raise AssertionError(statement)
        except error:
            pass
        assert not connection.is_in_transaction()


async def copies(connection):
    records = [(aid, f"copied {aid}", [None, "x"]) for aid in range(1000, 1200)]
    tag = await connection.copy_records_to_table("accounts", records=records, columns=["aid", "name", "tags"])
    assert tag == "COPY 200", tag
    assert await connection.fetchval("SELECT name FROM accounts WHERE aid = 1111") == "copied 1111"
    copied = bytearray()

    async def collect(data):
        copied.extend(data)

    assert await connection.copy_from_table("accounts", columns=["aid"], output=collect) == "COPY 240"
    assert sorted(int(line) for line in copied.split()) == list(range(1, 41)) + list(range(1000, 1200))
    try:
        await connection.copy_records_to_table("accounts", records=[(5000, "x"), (1, "x")], columns=["aid", "name"])
        raise AssertionError("a key exists already")
    except asyncpg.UniqueViolationError:
        pass
    assert await connection.fetchval("SELECT aid FROM accounts WHERE aid = 5000") is None


async def cancels(connection):
    try:
        await connection.fetch("SELECT pg_sleep(30) FROM accounts WHERE aid = 4", timeout=0.5)
        raise AssertionError("it must time out")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 1") == 1


async def pool():
    async with asyncpg.create_pool(URL, min_size=2, max_size=8) as pool:

        async def one(aid):
            async with pool.acquire() as connection:
                return await connection.fetchval("SELECT aid FROM accounts WHERE aid = $1", aid)

        aids = [1 + number % 40 for number in range(200)]
        assert await asyncio.gather(*(one(aid) for aid in aids)) == aids


async def main():
    connection = await asyncpg.connect(URL)
    assert connection.get_settings().client_encoding == "UTF8"
    await insert_and_read(connection)
    await prepared(connection)
    await transactions(connection)
    await failures(connection)
    await copies(connection)
    await cancels(connection)
    await connection.close()
    await pool()


asyncio.run(main())
