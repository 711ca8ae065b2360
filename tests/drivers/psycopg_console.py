"""The console through psycopg with autocommit: what pgbouncer_exporter asks there, and what is answered otherwise."""

import sys

import psycopg
from psycopg.rows import dict_row

# Columns that pgbouncer_exporter reads, by its query.
STATS = [
    "database", "total_xact_count", "total_query_count", "total_received", "total_sent", "total_xact_time",
    "total_query_time", "total_wait_time", "total_server_assignment_count",
]
# The columns that its releases since 0.10 read instead.
STATS_TOTALS = [
    "database", "query_count", "query_time", "bytes_received", "bytes_sent", "wait_time", "xact_count", "xact_time",
]
POOLS = [
    "database", "user", "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
    "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us",
]
DATABASES = [
    "name", "host", "port", "database", "force_user", "pool_mode", "pool_size", "reserve_pool", "max_connections",
    "current_connections", "paused", "disabled",
]
LISTS = [
    "databases", "users", "pools", "free_clients", "used_clients", "login_clients", "free_servers", "used_servers",
    "dns_names", "dns_zones", "dns_queries", "dns_pending",
]


def main():
    with psycopg.connect(sys.argv[1], autocommit=True, row_factory=dict_row) as console:
        ask = lambda sql: console.execute(sql).fetchall()
        assert ask("SHOW VERSION")[0]["version"].startswith("pgring ")
        for question, columns in [("STATS", STATS), ("STATS_TOTALS", STATS_TOTALS), ("POOLS", POOLS), ("DATABASES", DATABASES)]:
            # It ends each with a semicolon, and may be configured to write them small.
            assert ask(f"SHOW {question};"), question
            for row in ask(f"SHOW {question.lower()};"):
                missing = [column for column in columns if column not in row]
                assert not missing, (question, missing)
        assert all(isinstance(row["cl_active"], int) for row in ask("SHOW POOLS"))
        # One metric for each set of labels.
        labels = [(row["name"], row["host"], row["port"], row["database"]) for row in ask("SHOW DATABASES")]
        assert len(set(labels)) == len(labels), labels
        # Every metric is a number, and every label a text or a number.
        for question, columns in [("STATS_TOTALS", STATS_TOTALS), ("POOLS", POOLS)]:
            for row in ask(f"SHOW {question};"):
                for column in columns:
                    assert column in ("database", "user") or isinstance(row[column], int), (question, column, row[column])
        assert all(isinstance(row["pool_size"], int) for row in ask("SHOW databases;"))
        lists = {row["list"]: row["items"] for row in ask("SHOW LISTS")}
        assert all(name in lists for name in LISTS), lists
        config = {row["key"]: row["value"] for row in ask("SHOW CONFIG")}
        assert int(config["max_client_conn"]) > 0 and int(config["max_user_connections"]) == 0
        # psycopg prepares what is asked often.
        for _ in range(10):
            ask("SHOW CLIENTS")
        clients = ask("SHOW CLIENTS")
        assert [row["prepared_statements"] > 0 for row in clients if row["database"] == "pgring"] == [True]
        with console.cursor(binary=True) as cursor:
            slots = cursor.execute("SHOW SLOTS").fetchall()
            assert sum(row["slots"] for row in slots) == 16384
        assert console.execute("PAUSE").statusmessage == "PAUSE"
        assert console.execute("RESUME").statusmessage == "RESUME"
        for sql, parameters in [("SELECT 1", None), ("SHOW HELP %s", ["x"])]:
            try:
                console.execute(sql, parameters)
            except psycopg.Error as error:
                assert error.sqlstate in ("0A000", "42601"), error.sqlstate
            else:
                raise AssertionError(sql)
        assert ask("SHOW VERSION")
    # Without autocommit a driver begins a transaction first.
    with psycopg.connect(sys.argv[1]) as console:
        try:
            console.execute("SHOW VERSION")
        except psycopg.errors.FeatureNotSupported as error:
            assert "autocommit" in error.diag.message_hint
        else:
            raise AssertionError("a transaction began")


main()
