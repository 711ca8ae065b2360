"""psycopg 3 against the URL in the first argument: text and binary, prepared, transactions, errors, COPY, pipeline, cancel."""

import datetime
import decimal
import sys
import threading
import time

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

URL = sys.argv[1]
OPENED = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)


def insert_and_read(connection, binary, first):
    for aid in range(first, first + 20):
        row = (aid, f"näme {aid}", aid * 10, decimal.Decimal("1.50") * aid, OPENED, bytes([0, aid, 255]), ["a", "b,c"])
        connection.execute("INSERT INTO accounts VALUES (%b, %s, %b, %s, %t, %b, %s)", row)
        with connection.cursor(binary=binary) as cursor:
            found = cursor.execute("SELECT * FROM accounts WHERE aid = %s", (aid,)).fetchone()
            assert found == row, (binary, found, row)
    with connection.cursor(binary=binary) as cursor:
        cursor.execute("SELECT aid FROM accounts WHERE aid >= %s ORDER BY aid DESC LIMIT 3", (first,))
        assert [aid for (aid,) in cursor] == [first + 19, first + 18, first + 17]
        cursor.execute("SELECT aid FROM accounts WHERE aid = ANY(%s) ORDER BY aid", ([first, first + 5, 99999],))
        assert [aid for (aid,) in cursor] == [first, first + 5]
    connection.commit()


def prepared(connection):
    for round_trip in range(10):
        for aid in range(1, 21):
            row = connection.execute("SELECT balance FROM accounts WHERE aid = %s", (aid,), prepare=True).fetchone()
            assert row == (aid * 10,)
    connection.commit()
    # Beyond prepare_threshold statements are prepared by themselves, and evicted beyond prepared_max.
    connection.prepared_max = 5
    for number in range(30):
        for _ in range(7):
            assert connection.execute(f"SELECT {number}, name FROM accounts WHERE aid = %s", (7,)).fetchone()[0] == number
    connection.commit()


def transactions(connection):
    with connection.transaction():
        for aid in range(1, 9):
            connection.execute("UPDATE accounts SET balance = balance + 1 WHERE aid = %s", (aid,))
        try:
            with connection.transaction():
                connection.execute("UPDATE accounts SET balance = 0 WHERE aid = 9")
                connection.execute("UPDATE accounts SET balance = -1 WHERE aid = 10")
            raise AssertionError("a check constraint must fail")
        except errors.CheckViolation as error:
            assert error.sqlstate == "23514" and error.diag.constraint_name == "accounts_balance_check"
    rows = connection.execute("SELECT balance FROM accounts WHERE aid <= 10 ORDER BY aid").fetchall()
    assert [balance for (balance,) in rows] == [11, 21, 31, 41, 51, 61, 71, 81, 90, 100], rows
    connection.rollback()
    connection.execute("DELETE FROM accounts WHERE aid <= 10")
    connection.rollback()
    assert connection.execute("SELECT aid FROM accounts WHERE aid = 3").fetchone() == (3,)
    connection.rollback()


def failures(connection):
    for statement, state in [
        ("SELECT nothing FROM accounts WHERE aid = 1", "42703"),
        ("INSERT INTO accounts (aid) VALUES (1)", "23505"),
        ("SELEC", "42601"),
        ("SELECT 1/0", "22012"),
    ]:
        try:
            connection.execute(statement)
            raise AssertionError(statement)
        except psycopg.Error as error:
            assert error.sqlstate == state, (statement, error.sqlstate, state)
        try:
            connection.execute("SELECT 1")
            raise AssertionError("the block has failed")
        except errors.InFailedSqlTransaction:
            pass
        connection.rollback()
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def copies(connection):
    with connection.cursor() as cursor:
        with cursor.copy("COPY accounts (aid, name, tags) FROM STDIN") as copy:
            for aid in range(1000, 1100):
                copy.write_row((aid, "tab\there\\", ["x", None]))
        assert cursor.rowcount == 100
        with cursor.copy("COPY accounts (aid, name) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text"])
            for aid in range(1100, 1200):
                copy.write_row((aid, "binary"))
        connection.commit()
        with cursor.copy("COPY accounts (aid, name) TO STDOUT") as copy:
            copied = {row[0]: row[1] for row in copy.rows()}
        assert copied["1050"] == "tab\there\\" and copied["1150"] == "binary" and len(copied) == 240, len(copied)
        with cursor.copy("COPY (SELECT aid, name FROM accounts WHERE aid = 1150) TO STDOUT (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text"])
            assert list(copy.rows()) == [(1150, "binary")]
        try:
            with cursor.copy("COPY accounts (aid) FROM STDIN") as copy:
                copy.write_row((2000,))
                raise ValueError("the application gives up")
        except ValueError:
            pass
        connection.rollback()
        assert cursor.execute("SELECT aid FROM accounts WHERE aid = 2000").fetchone() is None
        connection.rollback()


def pipelines(connection):
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT name FROM accounts WHERE aid = %s", (aid,)) for aid in range(1, 21)]
        pipeline.sync()
        assert [cursor.fetchone()[0] for cursor in cursors] == [f"näme {aid}" for aid in range(1, 21)]
    connection.commit()
    try:
        with connection.pipeline() as pipeline:
            connection.execute("UPDATE accounts SET balance = 1 WHERE aid = 1")
            connection.execute("UPDATE accounts SET balance = -1 WHERE aid = 2")
            connection.execute("UPDATE accounts SET balance = 1 WHERE aid = 3")
        raise AssertionError("a check constraint must fail")
    except errors.CheckViolation:
        connection.rollback()
    assert connection.execute("SELECT balance FROM accounts WHERE aid = 3").fetchone() == (31,)
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE accounts SET name = %s WHERE aid = %s", [(f"n{aid}", aid) for aid in range(1, 21)])
        assert cursor.rowcount == 20
        cursor.executemany(
            "INSERT INTO accounts (aid, balance) VALUES (%s, %s) RETURNING aid",
            [(aid, 1) for aid in range(3000, 3020)],
            returning=True,
        )
        returned = []
        while True:
            returned.append(cursor.fetchone()[0])
            if not cursor.nextset():
                break
        assert returned == list(range(3000, 3020)), returned
    connection.commit()


def others(connection):
    with connection.cursor(row_factory=dict_row) as cursor:
        assert cursor.execute("SELECT aid, balance FROM accounts WHERE aid = 5").fetchone() == {"aid": 5, "balance": 51}
    with connection.cursor(name="named") as cursor:
        cursor.itersize = 2
        cursor.execute("SELECT n FROM generate_series(1, 7) n ORDER BY n")
        assert [n for (n,) in cursor] == list(range(1, 8))
    connection.commit()
    notices = []
    connection.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    connection.execute("DROP TABLE IF EXISTS nowhere")
    assert notices == ['table "nowhere" does not exist, skipping'], notices
    assert connection.info.parameter_status("client_encoding") == "UTF8"
    connection.execute("SET TIME ZONE 'Asia/Tokyo'")
    connection.commit()
    assert connection.info.timezone.key == "Asia/Tokyo"


def cancels(connection):
    timer = threading.Timer(0.5, connection.cancel)
    timer.start()
    started = time.monotonic()
    try:
        connection.execute("SELECT pg_sleep(30) FROM accounts WHERE aid = 4")
        raise AssertionError("it must be cancelled")
    except errors.QueryCanceled:
        assert time.monotonic() - started < 10
    connection.rollback()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.rollback()


with psycopg.connect(URL) as connection:
    insert_and_read(connection, False, 1)
    insert_and_read(connection, True, 21)
    prepared(connection)
    transactions(connection)
    failures(connection)
    copies(connection)
    pipelines(connection)
    others(connection)
    cancels(connection)
